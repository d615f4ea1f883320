"""A whole report with made-up figures, for tests of what is drawn and written from it."""

from __future__ import annotations

from typing import Any

from ondevice.bench.report.careful import against_careful, as_ours
from ondevice.bench.report.report import latency_summary

CANDIDATES = (1, 100, 1000)
THREADS = ("1", "2")


def latency(scale: float, methods: tuple[str, ...] = ("forward",)) -> dict[str, Any]:
    """Timings of a program that takes ``scale`` times those of the reference."""
    base = {1: 9.0, 100: 143.0, 1000: 1226.0}
    return {
        thread: {
            method: {
                str(count): {
                    "p50": base[count]
                    * scale
                    * (1 if thread == "1" else 0.8)
                    * (1 if method == "forward" else 0.9),
                    "p95": base[count] * scale * 1.2,
                    "over_reference": scale,
                }
                for count in CANDIDATES
            }
            for method in methods
        }
        for thread in THREADS
    }


def program(parts: dict[str, int], auc: float, scale: float, methods: tuple[str, ...]) -> dict[str, Any]:
    """What a baseline and a bundle have in common."""
    return {
        "parts": parts,
        "deflated_bytes": int(sum(parts.values()) * 0.8),
        "test_auc": auc,
        "test_logloss": 1.22 - auc,
        "delegated_fraction": 0.6,
        "load_ms": 2.2,
        "first_call_ms": 3.1,
        "memory": {
            "peak_rss_bytes": 520_000_000,
            "rss_before_load_bytes": 513_000_000,
            "added_rss_bytes": int(6_600_000 * scale),
            "added_anonymous_bytes": 3_400_000,
        },
        "peak_rss_bytes": 520_000_000,
        "latency": latency(scale, methods),
        "latency_us": latency_summary(latency(scale, methods)),
    }


def baseline(name: str) -> dict[str, Any]:
    """A baseline of ML-1M's size."""
    table = {"fp32": 1_736_960, "int8": 488_520, "int4": 271_400, "int2": 162_840}[name]
    parts = {
        "embeddings": table,
        "first_order": 54_280,
        "other_weights": 157_000 if name == "fp32" else 41_000,
        "program_overhead": 9_200,
    }
    auc = {"fp32": 0.9021, "int8": 0.9021, "int4": 0.9008, "int2": 0.8731}[name]
    entry = program(parts, auc, {"fp32": 0.94, "int8": 1.0, "int4": 1.03, "int2": 1.05}[name], ("forward",))
    return {**entry, "pte_bytes": sum(parts.values())}


def budget(embeddings: int, auc: float) -> dict[str, Any]:
    """A bundle with so many bytes of embeddings."""
    pte = {
        "embeddings": embeddings,
        "first_order": 4_200,
        "other_weights": 14_400,
        "catalog": 9_800,
        "program_overhead": 11_200,
    }
    parts = {**pte, "vocabulary": 10_900, "manifest": 4_100}
    total = sum(parts.values())
    entry = program(parts, auc, 0.83, ("forward", "rank"))
    dense = {name: baseline(name)["pte_bytes"] for name in ("fp32", "int8", "int4", "int2")}
    return {
        **entry,
        "kept_parameters": embeddings,
        "valid_auc": auc + 0.004,
        "bytes": {
            "pte": sum(pte.values()),
            "vocabulary": 10_900,
            "manifest": 4_100,
            "bundle": total,
            "deflated_bundle": int(total * 0.8),
        },
        "times_smaller": {name: size / total for name, size in dense.items()},
        "keys": {
            "num_keys": 10_900,
            "vocabulary_share": 10_900 / total,
            "vocabulary_bytes_per_key": 1.0,
            "bundle_bytes_per_key": total / 10_900,
        },
        "export": {
            "seconds": 14.2,
            "added_rss_bytes": 61_000_000,
            "dense_table_bytes": 1_736_960,
            "over_dense_table": 35.12,
        },
        "parity": {
            "eager_vs_packed": 2.4e-7,
            "packed_vs_int8_sqnr_db": 41.3,
            "int8_vs_pte_max_abs": 1.2e-6,
            "test_auc_eager": auc + 0.0001,
            "test_auc_pte": auc,
        },
    }


def careful_report() -> dict[str, Any]:
    """The same with careful programs: one as good as the headline bundle, and none as small as the smallest."""
    with_careful = report()
    programs = [
        {
            "name": f"d{dim}-int{bits}",
            "dim": dim,
            "bits": bits,
            "min_count": 1,
            "bytes": size,
            "test_auc": auc,
        }
        for dim, bits, size, auc in ((4, 4, 70_000, 0.8967), (8, 4, 90_000, 0.9001), (8, 8, 151_000, 0.9012))
    ]
    for each in programs:
        each["valid_auc"] = each["test_auc"] + 0.004
    taught = {"bytes": 1_960_000, "valid_auc": 0.907, "test_auc": 0.904, "test_logloss": 0.31}
    with_careful["careful"] = {"programs": programs, "taught": taught}
    for entry in with_careful["budgets"].values():
        entry["careful"] = against_careful(as_ours(entry), programs)
    return with_careful


def report() -> dict[str, Any]:
    """A run with four baselines and three budgets."""
    sizes = {
        "user": 6041,
        "gender": 3,
        "age": 8,
        "occupation": 22,
        "zip": 3402,
        "item": 3707,
        "year": 82,
        "genres": 302,
    }
    fields = [
        {"name": name, "sizes": [(0, 1, 2, 4, 8)[min(4, (i * 7) % 11 // 2)] for i in range(count)]}
        for name, count in sizes.items()
    ]
    return {
        "format_version": 1,
        "run": {
            "name": "movielens_1m_deepfm_pep",
            "dataset": "movielens_1m",
            "model": "deepfm",
            "method": "pep",
            "seed": 0,
            "embedding_dim": 32,
            "rows": {"train": 591_210, "valid": 73_901, "test": 73_901},
        },
        "headline": "20000",
        "baselines": {name: baseline(name) for name in ("fp32", "int8", "int4", "int2")},
        "baselines_left_out": {},
        "budgets": {
            "40000": budget(41_000, 0.9019),
            "20000": budget(20_800, 0.9007),
            "10000": budget(10_700, 0.8962),
        },
        "pareto": {
            "curves": [
                {
                    "name": f"pep, {training}",
                    "run": training,
                    "method": "pep",
                    "training": training,
                    "points": [
                        {
                            "name": name,
                            "bytes": size,
                            "test_auc": auc - loss,
                            "valid_auc": auc,
                            "kept_parameters": 9,
                            "dominated": loss > 0,
                        }
                        for name, size, auc in (("24KB", 23_900, 0.83), ("64KB", 63_800, 0.9007))
                    ],
                }
                for training, loss in (("retrained", 0.0), ("elastic", 0.002))
            ],
            "baselines": [
                {"name": name, "bytes": baseline(name)["pte_bytes"], "test_auc": baseline(name)["test_auc"]}
                for name in ("fp32", "int8", "int4", "int2")
            ],
        },
        "fields": fields,
        "history": {
            "dense": [{"epoch": e, "valid_auc": 0.9045 - 0.03 / e} for e in range(1, 12)],
            "search": [{"epoch": e, "valid_auc": 0.89, "kept": int(450_000 * 0.5**e)} for e in range(0, 6)],
            **{
                label: [{"epoch": e, "valid_auc": top - 0.02 / e} for e in range(1, 31)]
                for label, top in (("40000", 0.9052), ("20000", 0.9041), ("10000", 0.8999))
            },
        },
        "settings": {
            "candidates": list(CANDIDATES),
            "threads": list(THREADS),
            "reference": "int8",
            "rounds": 15,
        },
        "environment": {"processor": "x86_64, 2 cores", "torch": "2.13.0", "executorch": "1.4.1"},
    }
