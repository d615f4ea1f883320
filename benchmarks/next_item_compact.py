"""Compact models of the next item beside the careful opponent: bytes of whole bundles, NDCG@10 of their programs.

python benchmarks/next_item_compact.py runs/NAME [runs/NAME …] [--dense runs/DENSE …] [--careful 64x4 32x8 32x4]
    [--also runs/OTHER …] [--json FILE] [--image FILE]

A run has compact models (compact.budgets); several are those of other seeds, or of another sequence model. The
careful opponent of each seed, below the directory of its first run in ``careful/NAME``, has one dimension for all
items, in int8 or in int4 with one scale a table, and all else as the run: its sequence model, teachers, made-up
histories, schedule, and linear layers of as many bits. ``--also`` names runs whose compact models are opponents, too,
such as another sequence model of one dimension. Which one is compared with is chosen on validation. ``--dense`` names
runs of dense models; those with teachers (teach.teachers), one of each seed, are what bundles are to reach. What is
trained or exported already is not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.bench.report.report import environment
from ondevice.config.sections import Choice, Config, SizesConfig
from ondevice.config.stores import Codes, Int8, Store
from ondevice.errors import UserError, run_script
from ondevice.files import atomic_json, atomic_write
from ondevice.program.bundle import load_bundle
from ondevice.program.next_item_export import COST, export_next_item
from ondevice.run.directory import METRICS, Run
from ondevice.run.next_item import NextItemPipeline, is_next_item_run

LARGE = "16MB"
"""A budget that keeps nothing out: a careful table has its one dimension."""
PROGRAMS = ((16, 8), (16, 4), (32, 8), (32, 4), (64, 8), (64, 4))
LOSSES = (0.0, 0.01, 0.02, 0.05)
"""Shares of the NDCG@10 compared with that may be missing where the smallest bundle is looked for."""


def program(text: str) -> tuple[int, int]:
    """The dimension and the bits of a careful program, written 32x4.

    Raises: argparse.ArgumentTypeError: when it is none.
    """
    dim, _, bits = text.partition("x")
    if not dim.isdecimal() or int(dim) < 1 or bits not in ("4", "8"):
        raise argparse.ArgumentTypeError(f"got {text}; write a dimension and 4 or 8 bits, such as 32x4")
    return int(dim), int(bits)


def careful_store(ours: Store, dim: int, bits: int) -> Store:
    """How a careful table is stored: rounded afterwards to int8, or in training to integers of fewer bits."""
    shared = {key: getattr(ours, key) for key in ("first_order", "linear_bits")}
    if bits == 8:
        return Int8(max_size=dim, size_step=dim, **shared)
    return Codes(max_size=dim, size_step=dim, code_dims=8 // bits, code_start=0.5, codebook="grid", **shared)


def careful_config(run: Run, dim: int, bits: int, begun: str | None = None) -> Config:
    """The configuration of a careful program: the run's, but for sizes and what values are stored as.

    Where the run's compact models begin with a dense model, so do these: with the same one at its dimension, with one
    of its own at another, of the shape that ships and trained as the run's; and they are gone on with for as many
    epochs as search and retraining took.

    Args:
        begun: a run of a careful program of the same dimension, whose dense model is taken.
    """
    config, folder = run.config, run.path.resolve()
    if config.research.start not in ("initial", "fresh"):
        train, searched, start = config.compact.train, config.compact.sizes.epochs or 0, config.research.start
        if dim == config.embedding.dim:
            start = str(folder) if start == "dense" else start
        else:
            dropout = {k: v for k, v in config.model.options.items() if k == "dropout"}
            name, shipped = config.compact_model.name, config.compact_model.options
            if name == "decayed_pooling":  # as wide as ours, however small the table is
                shipped = {**shipped, "width": config.embedding.dim}
            compact = dataclasses.replace(config.compact, model={"name": name, **shipped})
            model = Choice(config.model.name, {**shipped, **dropout})
            config = dataclasses.replace(config, model=model, compact=compact)
            start = begun or "dense"
        config = dataclasses.replace(
            config,
            embedding=dataclasses.replace(config.embedding, dim=dim),
            research=dataclasses.replace(config.research, start=start),
            compact=dataclasses.replace(
                config.compact, train=dataclasses.replace(train, epochs=train.epochs + searched)
            ),
        )
    teachers = tuple(str(folder) if name == "dense" else name for name in config.compact.teach.teachers)
    compact = dataclasses.replace(
        config.compact,
        budgets=(LARGE,),
        sizes=SizesConfig("uniform"),
        store=careful_store(config.compact.store, dim, bits),
        teach=dataclasses.replace(config.compact.teach, teachers=teachers),
    )
    data = Choice(config.data.name, {**config.data.options, **run.data})
    return dataclasses.replace(
        config, data=data, compact=compact, run=dataclasses.replace(config.run, output=None)
    )


def measured(run: Run, label: str) -> dict[str, Any]:
    """Bytes and NDCG@10 of the program of a compact model, exported where that is not done yet."""
    place = run.path / "bundles" / label
    if not (place / COST).exists():
        export_next_item(run.path, label=label, data=run.data)
    bundle, entry = load_bundle(place), run.metrics["budgets"][label]
    parity = json.loads((place / COST).read_text())["parity"]
    return {
        "bytes": bundle.needed_bytes,
        "estimated_bytes": entry["estimated_bytes"],
        "pte_bytes": bundle.file_bytes()["model.pte"],
        "valid_ndcg@10": entry["valid"]["all"]["ndcg@10"],
        "test_ndcg@10": parity["test_ndcg@10_pte"],
        "test_ndcg@10_eager": parity["test_ndcg@10_eager"],
        "nobody_vs_popularity": parity["nobody_vs_popularity"],
    }


def compact_run(path: str) -> Run:
    """A run of the next item with compact models.

    Raises: UserError: when it is none.
    """
    run = Run(path)
    if not is_next_item_run(run.metrics) or "budgets" not in run.metrics:
        raise UserError(
            f"{path}: not a run of the next item with compact models; train it with compact.budgets=[64KB]"
        )
    return run


def opponents(run: Run, programs: list[tuple[int, int]], also: list[Run]) -> list[dict[str, Any]]:
    """The careful programs of a run, trained where that is not done yet, and other runs of its seed."""
    careful, begun = [], dict[int, str]()
    for dim, bits in programs:
        folder = run.path / "careful" / f"d{dim}-int{bits}"
        if not (folder / METRICS).exists():
            print(f"{run.path}: careful d{dim}-int{bits} is trained", flush=True)
            NextItemPipeline(careful_config(run, dim, bits, begun.get(dim)), folder, resume=True).run()
        begun[dim] = str(folder.resolve())  # what has other bits begins with the same dense model
        careful.append({"name": folder.name, "dim": dim, "bits": bits, **measured(Run(folder), LARGE)})
    for other in also:
        if other.metrics["seed"] == run.metrics["seed"]:
            config = other.config
            name = f"{config.compact_model.name}-d{config.embedding.dim}-{config.compact.sizes.name}"
            careful += [{"name": name, **measured(other, label)} for label in other.metrics["budgets"]]
    return careful


def measure_seed(runs: list[Run], programs: list[tuple[int, int]], also: list[Run]) -> dict[str, Any]:
    """The compact models of the runs of a seed and their opponents, those of the first run, each family by bytes."""
    ours = []
    for run in runs:
        kind = run.config.compact_model.name
        ours += [{"name": f"{kind}-{label}", **measured(run, label)} for label in run.metrics["budgets"]]
    careful, teach = opponents(runs[0], programs, also), runs[0].config.compact.teach
    ours, careful = (sorted(points, key=lambda point: point["bytes"]) for points in (ours, careful))
    return {
        "seed": runs[0].metrics["seed"],
        "teach": {"teachers": len(teach.teachers), "pairs": teach.pairs, "label_weight": teach.label_weight},
        "ours": ours,
        "careful": careful,
        "beside": [beside(point, careful) for point in ours],
    }


def smallest_within(points: list[dict[str, Any]], level: float) -> list[dict[str, Any]]:
    """For each of `LOSSES` the smallest bundle that keeps so much of a level on validation; None where none does."""
    smallest = []
    for loss in LOSSES:
        good = [point for point in points if point["valid_ndcg@10"] >= (1 - loss) * level]
        best = min(good, key=lambda point: point["bytes"], default={})
        smallest.append({"loss": loss, **{key: best.get(key) for key in ("name", "bytes", "test_ndcg@10")}})
    return smallest


def beside(point: dict[str, Any], careful: list[dict[str, Any]]) -> dict[str, Any]:
    """One of ours beside the opponent: the smallest at least as good and the best at most as large, by validation."""
    good = [other for other in careful if other["valid_ndcg@10"] >= point["valid_ndcg@10"]]
    small = [other for other in careful if other["bytes"] <= point["bytes"]]
    entry: dict[str, Any] = {"name": point["name"]}
    if good:
        smallest = min(good, key=lambda other: other["bytes"])
        entry |= {"as_good": smallest["name"], "times_smaller": smallest["bytes"] / point["bytes"]}
    if small:
        best = max(small, key=lambda other: other["valid_ndcg@10"])
        entry |= {"as_small": best["name"], "better_by": point["test_ndcg@10"] - best["test_ndcg@10"]}
    return entry


def dense_entry(path: str) -> dict[str, Any]:
    """NDCG@10 of the dense model of a run, eager in float32.

    Raises: UserError: when it has none.
    """
    run = Run(path)
    metrics = run.metrics
    if not is_next_item_run(metrics) or "dense" not in metrics:
        raise UserError(f"{path}: no run of a dense model of the next item")
    entry, is_taught = metrics["dense"], bool(run.config.teach.teachers)
    return {
        "name": f"{metrics['model']}, fp32{', taught' if is_taught else ''}",
        "seed": metrics["seed"],
        "taught": is_taught,
        **{f"{split}_ndcg@10": entry[split]["all"]["ndcg@10"] for split in ("valid", "test")},
    }


def picture(runs: list[dict[str, Any]], dense: list[dict[str, Any]]) -> bytes:
    """Bytes against NDCG@10 of both families, as PNG; the dense models are lines."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for family, label, marker, colour in (
        ("ours", "sizes by worth, in codes (ours)", "o", "#2f6f9f"),
        ("careful", "one dimension for all, int8 and int4", "s", "#a05a2c"),
    ):
        for place, run in enumerate(runs):
            across, up = zip(*((p["bytes"] / 1000, p["test_ndcg@10"]) for p in run[family]), strict=True) or (
                (),
                (),
            )
            axes.plot(across, up, marker=marker, color=colour, label=None if place else label, linewidth=1)
    for entry in dense:
        axes.axhline(
            entry["test_ndcg@10"],
            color="#57606a",
            linestyle="--",
            linewidth=1,
            label=entry["name"],
        )
    axes.set_xscale("log")
    for formats in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formats("{x:.0f}")
    axes.set_xlabel("bytes of the whole bundle, kB")
    axes.set_ylabel("NDCG@10 of the program, test")
    axes.legend(loc="lower right", frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=150)
    return out.getvalue()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--dense", nargs="*", default=[], help="runs of dense models, taught and not")
    parser.add_argument(
        "--careful",
        nargs="*",
        type=program,
        metavar="DIMxBITS",
        default=PROGRAMS,
        help="all by default",
    )
    parser.add_argument("--also", nargs="*", default=[], help="runs whose compact models are opponents, too")
    parser.add_argument("--json")
    parser.add_argument("--image")
    given = parser.parse_args(arguments)
    dense = [dense_entry(path) for path in given.dense]
    also = [compact_run(path) for path in given.also]
    of_seed: dict[int, list[Run]] = {}
    for each in map(compact_run, given.runs):
        of_seed.setdefault(each.metrics["seed"], []).append(each)
    for other in also:
        if other.metrics["seed"] not in of_seed:
            seeds = ", ".join(map(str, of_seed))
            raise UserError(
                f"--also: {other.path} is of seed {other.metrics['seed']}; the runs beside it are of {seeds}"
            )
    runs = [measure_seed(of_one, list(given.careful), also) for of_one in of_seed.values()]
    command = " ".join(["python", *sys.argv])
    result: dict[str, Any] = {"command": command, "environment": environment(), "runs": runs, "dense": dense}
    levels = {entry["seed"]: entry["valid_ndcg@10"] for entry in dense if entry["taught"]}
    if levels:
        result["smallest_within"] = [
            {
                "seed": run["seed"],
                **{
                    family: smallest_within(run[family], levels[run["seed"]])
                    for family in ("ours", "careful")
                },
            }
            for run in runs
            if run["seed"] in levels
        ]
    for run in runs:
        for point in (*run["ours"], *run["careful"]):
            print(
                f"seed {run['seed']} {point['name']:>12} {point['bytes']:>9,} bytes, NDCG@10 valid "
                f"{point['valid_ndcg@10']:.4f}, test {point['test_ndcg@10']:.4f}"
            )
        for entry in run["beside"]:
            smaller = (
                f"{entry['times_smaller']:.2f} times smaller than {entry['as_good']}"
                if "as_good" in entry
                else ""
            )
            better = f"{entry['better_by']:+.4f} over {entry['as_small']}" if "as_small" in entry else ""
            print(f"seed {run['seed']} {entry['name']:>12}: " + ", ".join(filter(None, (smaller, better))))
    for entry in dense:
        print(f"dense {entry['name']}, seed {entry['seed']}: test {entry['test_ndcg@10']:.4f}")
    if given.json:
        atomic_json(Path(given.json), result)
    if given.image:
        atomic_write(Path(given.image), picture(runs, dense))


if __name__ == "__main__":
    run_script(main)
