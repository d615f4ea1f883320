"""A run's bundles next to every peer, measured in one run on one machine.

Peers are the same dense model as torchao and ExecuTorch alone make it, as other runtimes do, and the compact models of
other runs: smaller uniform dimensions, pruning by magnitude, PEP's positions, the hashing trick.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ondevice.bench.benchmark import bundle_subject, cold_summary, dense_subjects, measure_file
from ondevice.bench.dense.baselines import DenseProgram
from ondevice.bench.measure.quality import quality
from ondevice.bench.measure.size import bundle_bytes, deflated_bytes
from ondevice.bench.measure.worker import run_jobs
from ondevice.bench.measure.workload import make_requests, write_inputs
from ondevice.bench.peers.figure import write_picture
from ondevice.bench.peers.measured import EXECUTORCH, Peer
from ondevice.bench.peers.runs import against, other_bundles
from ondevice.bench.peers.targets import make_programs, peers
from ondevice.bench.report.drawing import format_bytes
from ondevice.bench.report.report import environment
from ondevice.bench.settings import Settings
from ondevice.bench.shipped import find_bundles
from ondevice.data import Dataset
from ondevice.errors import MissingPackage, UserError
from ondevice.files import atomic_json, atomic_write
from ondevice.program.bundle import Bundle, load_bundle
from ondevice.program.target import TARGETS
from ondevice.run.directory import Run

FORMAT_VERSION = 1
PACKAGES = ("onnx", "onnxruntime", "litert-torch", "ai-edge-quantizer", "ai-edge-litert")
REFERENCE = "executorch int8"
DEFAULTS = Settings(baselines=("fp32", "int8"), threads=(1,))
INSTALL = "pip install 'ondevice-recommender[peers]'"


def measure_peers(
    path: str | Path,
    *,
    output: str | Path | None = None,
    bundles: Sequence[str] = (),
    also: Sequence[str] = (),
    settings: Settings = DEFAULTS,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure a run's bundles beside its dense model in every runtime that is installed, and beside other runs.

    Args:
        path: the run's directory.
        output: where the report goes; None for peers.json in the run's directory.
        bundles: names in the run's ``bundles`` folder; with none, all that are there.
        also: directories of runs on the same data whose compact models are peers.
        settings: rounds, cold starts, candidates, ExecuTorch baselines; the first number of threads counts.
        say: told each step as it ends.

    Returns: the report; ``programs`` holds each program's figures, ``against`` each peer beside our bundles at its
    bytes and at its AUC, ``left_out`` why a runtime has no programs. Table and picture are written beside it.

    Raises: UserError: when a directory is no finished run, or there is no other run and no other runtime.
    """
    run = Run(path)
    metrics = run.metrics
    left_out = {
        runtime: f"{', '.join(missing)} not installed; {INSTALL}"
        for runtime, target in peers().items()
        if (missing := target.missing())
    }
    if REFERENCE.split()[1] not in settings.baselines:
        raise UserError("baselines: int8 is what every ratio is taken of; add it")
    if len(left_out) == len(peers()) and not also:
        raise MissingPackage(f"no other runtime is installed; {INSTALL}")
    for runtime, reason in left_out.items():
        say(f"{runtime} left out: {reason}")
    dataset = run.dataset()
    candidates = sorted(settings.candidates)
    others = other_bundles(also, run, say)
    programs, row_of, entries, ours = _executorch(run, dataset, bundles, others, settings, say)
    dense = run.dense()
    folder = run.path / "peers"
    folder.mkdir(exist_ok=True)
    for runtime in peers():
        if runtime in left_out:
            continue
        made = make_programs(runtime, DenseProgram(dense), dense.info.slots.total, candidates, folder)
        for name, peer in made.items():
            content = peer.file(candidates[-1]).read_bytes()
            scores = score(peer, dataset.test.ids, candidates[-1])
            entries[name] = {
                "runtime": runtime,
                "bytes": len(content),
                "deflated_bytes": deflated_bytes({name: content}),
                **quality(dataset.test, scores),
            }
            say(f"{name}: {format_bytes(len(content))}, test AUC {entries[name]['test_auc']:.4f}")
        programs |= made
    _measure_speed(programs, row_of, entries, dataset, settings, say)
    report = {
        "format_version": FORMAT_VERSION,
        "run": {"name": run.path.resolve().name, "dataset": dataset.schema.name, "seed": metrics["seed"]},
        "programs": entries,
        "ours": ours,
        "against": against(entries, ours),
        "left_out": left_out,
        "settings": {
            "candidates": candidates,
            "threads": settings.threads[0],
            "rounds": settings.rounds,
            "cold_starts": settings.cold_starts,
            "reference": REFERENCE,
        },
        "environment": environment(PACKAGES),
    }
    written = Path(output or run.path / "peers.json")
    atomic_json(written, report)
    atomic_write(written.with_suffix(".md"), text_table(report) + "\n")
    write_picture(report, written.with_suffix(".png"))
    return report


def _executorch(
    run: Run,
    dataset: Dataset,
    bundles: Sequence[str],
    others: Mapping[str, Bundle],
    settings: Settings,
    say: Callable[[str], None],
) -> tuple[dict[str, Peer], dict[str, Tensor | None], dict[str, dict[str, Any]], list[str]]:
    """ExecuTorch's dense programs and all bundles: programs, their rows of the ids, their figures; names of ours."""
    programs: dict[str, Peer] = {}
    row_of: dict[str, Tensor | None] = {}
    entries: dict[str, dict[str, Any]] = {}
    dense, _ = dense_subjects(run, settings, say)
    shipped = find_bundles(run, bundles, None, say)
    opened = {f"ondevice {name}": load_bundle(each) for name, each in shipped.items()}
    ours = list(opened)
    opened |= others
    subjects = {f"executorch {name}": each for name, each in dense.items()}
    subjects |= {name: bundle_subject(name, each, dataset.vocabulary) for name, each in opened.items()}
    for name, subject in subjects.items():
        if max(settings.candidates) > subject.max_batch:
            raise UserError(f"{name}: one call takes at most {subject.max_batch} candidates; ask for fewer")
        programs[name] = Peer(EXECUTORCH, {0: subject.pte})
        row_of[name] = subject.row_of
        measured = measure_file(subject, dataset, say)
        entries[name] = {
            "runtime": EXECUTORCH,
            "bytes": measured["pte_bytes"],
            "deflated_bytes": measured["deflated_bytes"],
            "test_auc": measured["test_auc"],
            "test_logloss": measured["test_logloss"],
        }
    for name, each in opened.items():  # what ships is the program with its vocabulary and manifest
        sizes = bundle_bytes(each.path)
        entries[name] |= {"bytes": sizes["bundle"], "deflated_bytes": sizes["deflated_bundle"]}
    return programs, row_of, entries, ours


def score(peer: Peer, ids: np.ndarray, rows: int) -> np.ndarray:
    """Scores (n,) float32 of rows of training ids (n, F), ``rows`` at a time; the last call is filled up."""
    file = peer.file(rows)
    program = TARGETS[peer.runtime]().open(file.read_bytes(), str(file))
    scores = np.empty(len(ids), dtype=np.float32)
    for start in range(0, len(ids), rows):
        batch = np.asarray(ids[start : start + rows], dtype=np.int64)
        whole = np.concatenate([batch, np.repeat(batch[-1:], rows - len(batch), axis=0)])
        scores[start : start + rows] = program("forward", whole)[0][: len(batch)]
    return scores


def _measure_speed(
    programs: Mapping[str, Peer],
    row_of: Mapping[str, Tensor | None],
    entries: dict[str, dict[str, Any]],
    dataset: Dataset,
    settings: Settings,
    say: Callable[[str], None],
) -> None:
    """Latency, then memory and load time, into the entries."""
    schema, counts = dataset.schema, sorted(settings.candidates)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "inputs.safetensors"
        inputs = {}
        for count in counts:
            requests = make_requests(dataset.test.ids, schema.context_columns, schema.item_columns, count)
            for name in programs:
                rows = row_of.get(name)
                inputs[name, "forward", str(count)] = [
                    (each.rows if rows is None else rows[each.rows],) for each in requests
                ]
        write_inputs(file, inputs)
        threads = settings.threads[0]
        job: dict[str, Any] = {"inputs": str(file), "threads": threads}
        groups = {
            str(count): {
                name: {"runtime": peer.runtime, "file": str(peer.file(count).resolve())}
                for name, peer in programs.items()
            }
            for count in counts
        }
        latency = job | {"task": "latency", "groups": groups, "rounds": settings.rounds}
        (result,) = run_jobs([latency | {"reference": REFERENCE}], module="ondevice.bench.peers.worker")
        for name in programs:
            entries[name]["latency_us"] = {group: measured[name] for group, measured in result.items()}
        say(f"latency: {len(programs)} programs with {threads} thread")
        group = str(counts[-1])
        jobs = [
            job | groups[group][name] | {"task": "cold", "name": name, "group": group}
            for _ in range(settings.cold_starts)
            for name in programs
        ]
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
        for each, measured in zip(jobs, run_jobs(jobs, module="ondevice.bench.peers.worker"), strict=True):
            results[each["name"]].append(measured)
        for name, seeds in results.items():
            entries[name] |= cold_summary(seeds)
        say(f"memory: {settings.cold_starts} fresh processes each")


def text_table(report: Mapping[str, Any]) -> str:
    """The programs as a Markdown table."""
    counts = report["settings"]["candidates"]
    lines = [
        "| program | bytes | deflated | test AUC | p50 µs at "
        + " / ".join(map(str, counts))
        + " | memory added | at its bytes, ours | at its AUC, ours |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, entry in report["programs"].items():
        times = " / ".join(f"{entry['latency_us'][str(count)]['p50']:,.0f}" for count in counts)
        lines.append(
            f"| {name} | {entry['bytes']:,} | {entry['deflated_bytes']:,} | {entry['test_auc']:.4f} | {times} "
            f"| {format_bytes(entry['memory']['added_rss_bytes'])} | {_compared(report['against'].get(name))} |"
        )
    lines += [f"\n{runtime} left out: {reason}" for runtime, reason in report["left_out"].items()]
    return "\n".join(lines)


def _compared(report: Mapping[str, Any] | None) -> str:
    """The two cells of one peer beside our bundles; empty for our own."""
    if report is None:
        return " | "
    gain, times = report["at_bytes"], report["at_auc"]
    return " | ".join(
        [
            "none" if gain is None else f"{gain['auc_gain']:+.4f}",
            "none" if times is None else f"{times['times_smaller']:.2f}× smaller",
        ]
    )
