"""Compact models of other runs as peers: the same data, another method, a bundle each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ondevice.bundle.manifest import MANIFEST
from ondevice.errors import UserError
from ondevice.program.bundle import Bundle, load_bundle
from ondevice.run.directory import Run


def other_bundles(paths: Sequence[str], run: Run, say: Callable[[str], None] = print) -> dict[str, Bundle]:
    """The bundle of every compact model of other runs, exported where it is not yet.

    Names are the method, ``csr`` where it keeps positions, and the label of the budget. Where two are the same,
    the run's directory is added.

    Args:
        paths: run directories.
        run: the run whose data they must have.
        say: told each bundle that is exported.

    Raises: UserError: when a run has other data or another split, or no compact model.
    """
    fingerprint = (run.path / "fingerprint").read_text()
    bundles: dict[str, Bundle] = {}
    for path in paths:
        other = Run(path)
        method = other.metrics["method"]
        if (other.path / "fingerprint").read_text() != fingerprint:
            raise UserError(f"--also {path}: trained on other data or another split than {run.path}")
        if not other.budgets():
            raise UserError(f"--also {path}: holds no compact model; finish the training with --resume")
        for label in other.budgets():
            positions = other.config.compact.store.keeps_positions
            name = f"{method}{' csr' if positions else ''} {label}"
            if name in bundles:
                name = f"{name} ({other.path.resolve().name})"
            folder = other.path / "bundles" / label
            if not (folder / MANIFEST).exists():
                _export(other, label, "csr" if positions else "staircase")
                say(f"exported {folder}")
            bundles[name] = load_bundle(folder)
    return bundles


def _export(run: Run, label: str, layout: str) -> None:
    from ondevice.program.export import ExportOptions
    from ondevice.program.export_run import export_run

    options = ExportOptions(layout=layout, methods=("forward",))
    export_run(run.path, labels=[label], options=options, output=run.path / "bundles" / label, data=run.data)


def against(programs: Mapping[str, Mapping[str, Any]], ours: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Each peer against our bundles, at its bytes and at its AUC.

    ``at_bytes`` is our best bundle that is no larger, with ``auc_gain`` of it over the peer; ``at_auc`` our smallest
    bundle whose test AUC is at least as high, with ``times_smaller``. Either is None where there is none.

    Args:
        programs: name to an entry with ``bytes`` and ``test_auc``.
        ours: names of our bundles among them.
    """
    result: dict[str, dict[str, Any]] = {}
    for name, peer in programs.items():
        if name in ours:
            continue
        small = [n for n in ours if programs[n]["bytes"] <= peer["bytes"]]
        good = [n for n in ours if programs[n]["test_auc"] >= peer["test_auc"]]
        best = max(small, key=lambda n: programs[n]["test_auc"], default=None)
        least = min(good, key=lambda n: programs[n]["bytes"], default=None)
        result[name] = {
            "at_bytes": best and {"program": best, "auc_gain": programs[best]["test_auc"] - peer["test_auc"]},
            "at_auc": least and {"program": least, "times_smaller": peer["bytes"] / programs[least]["bytes"]},
        }
    return result
