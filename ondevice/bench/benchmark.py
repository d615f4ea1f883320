"""The whole benchmark of a run: baselines, sizes, quality, latency, memory, parity, reports."""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ondevice.bench.dense.baselines import make_baseline
from ondevice.bench.dense.careful import measure_careful, taught_baseline
from ondevice.bench.dense.instructions import read_counts
from ondevice.bench.measure.quality import quality, score
from ondevice.bench.measure.runtime import Program
from ondevice.bench.measure.size import PROGRAM, bundle_bytes, deflated_bytes
from ondevice.bench.measure.worker import run_jobs
from ondevice.bench.measure.workload import Request, make_requests, write_inputs
from ondevice.bench.report.careful import against_careful, as_ours
from ondevice.bench.report.drawing import format_bytes, format_us
from ondevice.bench.report.pareto import curve, every_budget, measure_run, open_others, pareto, point
from ondevice.bench.report.report import (
    REPORT,
    choose_headline,
    current,
    environment,
    latency_summary,
    model_sha256,
    read_report,
    times_smaller,
    write,
)
from ondevice.bench.settings import Settings
from ondevice.bench.shipped import compact_metrics, field_sizes, find_bundles, label_of, program_rows
from ondevice.bundle.manifest import COST
from ondevice.data import Dataset, Vocabulary
from ondevice.errors import UserError
from ondevice.files import atomic_write
from ondevice.program.bundle import Bundle, load_bundle
from ondevice.program.pte import EMBEDDINGS
from ondevice.program.target import Inspection
from ondevice.program.targets import shipped
from ondevice.run.directory import Run
from ondevice.run.elastic import compact_model

REFERENCE = "int8"
RECOMMEND = "recommend"


@dataclass(frozen=True)
class Subject:
    """One program under measurement.

    Args:
        name: of the baseline or the bundle.
        pte: its file.
        inspection: the file taken apart.
        max_batch: most rows of one call.
        row_of: what the program calls each training id; None where it takes them as they are.
    """

    name: str
    pte: Path
    inspection: Inspection
    max_batch: int
    row_of: Tensor | None = None

    def inputs(self, method: str, request: Request) -> tuple[Tensor, ...]:
        """What a method gets for a request."""
        ids = {
            "forward": (request.rows,),
            "rank": (request.context, request.items),
            "recommend": (request.context,),
        }[method]
        return ids if self.row_of is None else tuple(self.row_of[part] for part in ids)

    def ranking_method(self) -> str:
        """The method that ranks candidates: rank where there is one."""
        return "rank" if "rank" in self.inspection.methods else "forward"


def run_benchmark(
    run: Run | str | Path,
    *,
    bundles: Sequence[str] = (),
    bundle: str | Path | None = None,
    settings: Settings = Settings(),
    arm64_counts: str | Path | None = None,
    also: Sequence[str | Path] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure a run's bundles against the dense programs of the same run, and write the reports.

    Args:
        run: a run, or its directory.
        bundles: names in the run's ``bundles`` folder, labels or budgets; those that are missing are
            exported. With none, all that are there, or if there are none, every compact model's.
        bundle: one bundle anywhere, instead of those.
        settings: how much is measured.
        arm64_counts: a file with counts of arm64 instructions, which go into the report.
        also: other runs on the same data whose bundles are scored as well, for a curve over all budgets of all of
            them; an empty list for the curve of this run, None for none.
        say: told each step as it ends.

    Returns: the report; ``files`` lists what was written.

    Raises: UserError: when the run, or a bundle, is not one, or the data changed since.
    """
    run = run if isinstance(run, Run) else Run(run)
    metrics, dataset = run.metrics, run.dataset()
    others = [] if also is None else open_others(also, run)
    names = bundles if also is None else every_budget(run, bundles)
    shipped = find_bundles(run, names, bundle, say)
    opened = {name: load_bundle(folder) for name, folder in shipped.items()}
    programs = {name: model_sha256(each) for name, each in opened.items()}
    counts = {} if arm64_counts is None else read_counts(arm64_counts, programs)
    subjects, left_out = dense_subjects(run, settings, say)
    reference = REFERENCE if REFERENCE in subjects else next(iter(subjects))
    subjects |= {name: bundle_subject(name, each, dataset.vocabulary) for name, each in opened.items()}
    for subject in subjects.values():
        if max(settings.candidates) > subject.max_batch:
            raise UserError(
                f"{subject.name}: {max(settings.candidates)} candidates, but one call takes at most "
                f"{subject.max_batch}; give smaller --candidates, or export with a larger --max-batch"
            )
    entries = {name: measure_file(subject, dataset, say) for name, subject in subjects.items()}
    _measure_speed(subjects, entries, dataset, settings, reference, say)
    baselines = {name: entry for name, entry in entries.items() if name not in opened}
    for name, each in opened.items():
        label = label_of(each, run.budgets())
        compact = compact_metrics(run, label, each)
        sizes = bundle_bytes(each.path)
        entries[name] |= {
            "label": label,
            "model_sha256": programs[name],
            "kept_parameters": compact["kept_parameters"],
            "valid_auc": compact["valid_auc"],
            "bytes": sizes,
            "deflated_bytes": sizes["deflated_bundle"],
            "keys": key_figures(each.vocabulary.num_keys(), sizes),
            **({"export": json.loads(cost.read_text())} if (cost := each.path / COST).exists() else {}),
            "times_smaller": times_smaller(sizes["bundle"], baselines),
            "parity": _parity(run, label, each, dataset, subjects[name].inspection),
        }
        entries[name]["parts"] |= {"vocabulary": sizes["vocabulary"], "manifest": sizes["manifest"]}
        say(f"parity of {name}: {entries[name]['parity']['packed_vs_int8_sqnr_db']:.1f} dB")
    budgets = {name: entries[name] for name in sorted(opened, key=lambda n: -entries[n]["bytes"]["bundle"])}
    careful = measure_opponent(run, settings, dataset, say)
    for entry in budgets.values() if careful else ():
        entry["careful"] = against_careful(as_ours(entry), careful["programs"])
    curves = [] if also is None else [curve(run, [point(n, e, e) for n, e in budgets.items()])]
    curves += [measure_run(other, score_bundle, say) for other in others]
    headline = choose_headline(metrics["dense"]["valid_auc"], budgets)
    report: dict[str, Any] = {
        "format_version": 1,
        "run": {
            "name": run.path.resolve().name,
            **{key: metrics[key] for key in ("dataset", "model", "method", "seed", "rows")},
            "embedding_dim": run.config.embedding.dim,
        },
        "headline": headline,
        "baselines": baselines,
        "baselines_left_out": left_out,
        "budgets": budgets,
        "devices": current(
            (read_report(run.path / REPORT) or {}).get("devices", {}),
            programs,
        ),
        **({"arm64_instructions": counts} if counts else {}),
        **({"careful": careful} if careful else {}),
        **({"pareto": pareto(curves, baselines)} if curves else {}),
        "fields": field_sizes(run, entries[headline]["label"]),
        "history": metrics.get("history", {}),
        "settings": {
            "candidates": list(settings.candidates),
            "threads": [str(count) for count in settings.threads],
            "rounds": settings.rounds,
            "cold_starts": settings.cold_starts,
            "reference": reference,
        },
        "environment": environment(),
    }
    files = write(report, run.path, {name: each.path for name, each in opened.items()})
    return {**report, "files": files}


def dense_subjects(
    run: Run, settings: Settings, say: Callable[[str], None]
) -> tuple[dict[str, Subject], dict[str, str]]:
    """The dense programs, written to the run's ``baselines`` folder, and why others were left out."""
    dense = run.dense()
    subjects: dict[str, Subject] = {}
    left_out: dict[str, str] = {}
    for name in settings.baselines:
        started = time.perf_counter()
        try:
            made = make_baseline(dense, name)
        except UserError as error:
            left_out[name] = str(error)
            say(f"dense {name} left out: {error}")
            continue
        path = run.path / "baselines" / f"{name}.pte"
        atomic_write(path, made.pte)
        subjects[name] = Subject(name, path, shipped().inspect(made.pte, str(path)), made.max_batch)
        say(f"dense {name}: {format_bytes(len(made.pte))} ({time.perf_counter() - started:.0f} s)")
    return subjects, left_out


def bundle_subject(name: str, bundle: Bundle, vocabulary: Vocabulary) -> Subject:
    """A bundle's program, with the row of every training id.

    Raises: UserError: when it has no method ``forward``.
    """
    path = bundle.path / PROGRAM
    methods = bundle.manifest["methods"]
    if "forward" not in methods:
        raise UserError(
            f"{bundle.path}: has no method forward, which the test split is scored with; "
            "export it with --methods forward,rank,recommend"
        )
    limits = [methods["forward"]["max_batch"], methods.get("rank", {}).get("max_items", math.inf)]
    rows = bundle.manifest["sizes"]["first_order_rows"]
    inspection = shipped().inspect(path.read_bytes(), str(path), first_order_rows=rows)
    return Subject(name, path, inspection, int(min(limits)), program_rows(bundle, vocabulary))


def score_bundle(name: str, bundle: Bundle, dataset: Dataset) -> dict[str, Any]:
    """Quality of a bundle's program over the whole test split."""
    subject = bundle_subject(name, bundle, dataset.vocabulary)
    scores = score(Program(subject.pte), dataset.test.ids, max_batch=subject.max_batch, row_of=subject.row_of)
    return quality(dataset.test, scores)


def measure_opponent(
    run: Run, settings: Settings, dataset: Dataset, say: Callable[[str], None]
) -> dict[str, Any]:
    """The careful programs, trained where they are not, and the taught dense one; empty where none are asked for."""
    programs = measure_careful(run, settings, score_bundle, say)
    if not programs:
        return {}
    made = taught_baseline(run, say) if settings.taught else None
    if made is None:
        return {"programs": programs, "taught": None}
    baseline, path, valid = made
    scores = score(Program(path), dataset.test.ids, max_batch=baseline.max_batch)
    taught = {"bytes": len(baseline.pte), "valid_auc": valid, **quality(dataset.test, scores)}
    say(f"dense, taught: test AUC {taught['test_auc']:.4f}")
    return {"programs": programs, "taught": taught}


def measure_file(subject: Subject, dataset: Dataset, say: Callable[[str], None]) -> dict[str, Any]:
    """Bytes, and quality over the whole test split."""
    content = subject.pte.read_bytes()
    scores = score(Program(subject.pte), dataset.test.ids, max_batch=subject.max_batch, row_of=subject.row_of)
    entry = {
        "pte_bytes": len(content),
        "deflated_bytes": deflated_bytes({subject.pte.name: content}),
        "parts": dict(subject.inspection.parts),
        "delegated_fraction": round(subject.inspection.delegated_fraction, 4),
        **quality(dataset.test, scores),
    }
    say(f"{subject.name}: test AUC {entry['test_auc']:.4f} over {len(scores):,} rows")
    return entry


def _measure_speed(
    subjects: Mapping[str, Subject],
    entries: dict[str, dict[str, Any]],
    dataset: Dataset,
    settings: Settings,
    reference: str,
    say: Callable[[str], None],
) -> None:
    """Latency, then memory and load time, into the entries."""
    schema, groups = dataset.schema, [str(count) for count in settings.candidates]
    requests = {
        group: make_requests(dataset.test.ids, schema.context_columns, schema.item_columns, int(group))
        for group in groups
    }
    requests[RECOMMEND] = requests[groups[0]]
    calls = _calls(subjects, groups)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.safetensors"
        write_inputs(
            inputs,
            {
                (name, method, group): [subjects[name].inputs(method, each) for each in requests[group]]
                for group, members in calls.items()
                for name, method in members
            },
        )
        job: dict[str, Any] = {"inputs": str(inputs)}
        latency = job | {
            "task": "latency",
            "programs": {name: str(subject.pte.resolve()) for name, subject in subjects.items()},
            "groups": calls,
            "rounds": settings.rounds,
            "reference": f"{reference}.forward",
        }
        for threads in settings.threads:
            (result,) = run_jobs([latency | {"threads": threads}])
            _take_latency(result["groups"], entries, str(threads))
            most = result["groups"][groups[-1]][f"{reference}.forward"]["p50"]
            say(f"latency, {threads} threads: {reference} {format_us(most)} for {groups[-1]} candidates")
        for entry in entries.values():
            entry["latency_us"] = latency_summary(entry["latency"])
        cold = job | {"task": "cold", "threads": 1, "group": groups[-1]}
        jobs = [
            cold | {"name": name, "pte": str(subject.pte.resolve()), "method": subject.ranking_method()}
            for _ in range(settings.cold_starts)
            for name, subject in subjects.items()
        ]
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in subjects}
        for each, result in zip(jobs, run_jobs(jobs, at_once=min(4, os.cpu_count() or 1)), strict=True):
            results[each["name"]].append(result)
        for name, measured in results.items():
            entries[name] |= cold_summary(measured)
            say(f"memory of {name}: {format_bytes(entries[name]['memory']['added_rss_bytes'])}")


def _calls(subjects: Mapping[str, Subject], groups: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Group to the (program, method) pairs that take turns in it."""

    def having(*methods: str) -> list[tuple[str, str]]:
        return [(n, m) for n, subject in subjects.items() for m in methods if m in subject.inspection.methods]

    calls = {group: having("forward", "rank") for group in groups}
    return {**calls, RECOMMEND: having(RECOMMEND)} if having(RECOMMEND) else calls


def _take_latency(groups: Mapping[str, Any], entries: dict[str, dict[str, Any]], threads: str) -> None:
    """Sort results of one process under program, threads, method, candidates."""
    for group, members in groups.items():
        for call, measured in members.items():
            name, method = call.rsplit(".", 1)
            by_threads = entries[name].setdefault("latency", {}).setdefault(threads, {})
            if method == RECOMMEND:
                entries[name].setdefault("recommend_us", {})[threads] = measured
            else:
                by_threads.setdefault(method, {})[group] = measured


def cold_summary(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians over the fresh processes."""
    middle = {key: statistics.median_low([m[key] for m in measured]) for key in measured[0]}
    times = {key: round(middle.pop(key), 3) for key in ("load_ms", "first_call_ms")}
    return {**times, "peak_rss_bytes": middle["peak_rss_bytes"], "memory": middle}


def _parity(run: Run, label: str, bundle: Bundle, dataset: Dataset, inspection: Inspection) -> dict[str, Any]:
    """Eager against packed against int8 against the file, with what was exported made again."""
    from ondevice.program.pack import pack
    from ondevice.program.parity import parity
    from ondevice.program.quantize import quantize

    recommender = compact_model(run, label)
    bits = bundle.vocabulary.fingerprint_bits()
    named = set(range(len(dataset.schema.fields))).difference(bits)
    texts, most = dataset.vocabulary.key_texts(), max(bits.values(), default=None)
    packed = pack(recommender, bundle.manifest["layout"], texts, most, named)
    tables = [c for c in inspection.constants if c.part == EMBEDDINGS and len(c.shape) == 2]
    is_float = any(c.num_bytes == 4 * math.prod(c.shape) for c in tables)
    quantized = quantize(packed, "none" if is_float else "int8")
    return parity(recommender, packed, quantized, bundle, dataset.test)


def key_figures(num_keys: int, sizes: Mapping[str, int]) -> dict[str, float]:
    """What the stored keys take: bytes of the vocabulary and of the bundle per key, the vocabulary's share."""
    figures = {"num_keys": num_keys, "vocabulary_share": round(sizes["vocabulary"] / sizes["bundle"], 4)}
    if num_keys:  # a bundle of hashed fields may have none
        figures["vocabulary_bytes_per_key"] = round(sizes["vocabulary"] / num_keys, 3)
        figures["bundle_bytes_per_key"] = round(sizes["bundle"] / num_keys, 3)
    return figures
