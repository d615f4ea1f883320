"""The bundles of a run: which there are, what they were made of, and how they name a training id."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ondevice.bundle.manifest import MANIFEST
from ondevice.data import Vocabulary
from ondevice.errors import UserError
from ondevice.program.bundle import Bundle
from ondevice.run.directory import Run
from ondevice.run.elastic import compact_model


def find_bundles(
    run: Run, names: Sequence[str], folder: str | Path | None, say: Callable[[str], None]
) -> dict[str, Path]:
    """Name to directory of the bundles to measure; what is asked for and missing is exported.

    Raises: UserError: when a name is neither a bundle, a compact model nor a budget that one fits.
    """
    if folder is not None:
        return {Path(folder).resolve().name: Path(folder)}
    base = run.path / "bundles"
    present = [path.parent.name for path in base.glob(f"*/{MANIFEST}")]
    missing = [name for name in names if name not in present]
    if missing or not (names or present):
        from ondevice.program.export_run import export_run

        labels = [name for name in missing if name in run.budgets()]
        budgets = [name for name in missing if name not in labels]
        exported = export_run(run.path, labels=labels, budgets=budgets, data=run.data)
        made = [each.bundle.path.name for each in exported]
        say(f"exported {', '.join(made)}")
        names = [*(name for name in names if name not in missing), *made]
    return {name: base / name for name in names or sorted(present)}


def label_of(bundle: Bundle, labels: Sequence[str]) -> str:
    """The compact model that a bundle was made of: its name ends in the label, one of the run's or an elastic one.

    Raises: UserError: when it is none of the run's.
    """
    cut = re.search(r"-(elastic-\d+)$", bundle.manifest["name"])
    if cut is not None:
        return cut[1]
    for label in sorted(labels, key=len, reverse=True):
        if bundle.manifest["name"].endswith(f"-{label}"):
            return label
    raise UserError(
        f"{bundle.path}: '{bundle.manifest['name']}' is no compact model of this run (it has "
        f"{', '.join(labels) or 'none'}); give the run that the bundle was exported from"
    )


def compact_metrics(run: Run, label: str, bundle: Bundle) -> dict[str, Any]:
    """Kept values and validation AUC of the compact model that a bundle was made of."""
    known: dict[str, Any] | None = run.metrics["budgets"].get(label)
    if known is not None:
        return known
    kept = compact_model(run, label).num_kept()
    return {"kept_parameters": kept, "valid_auc": bundle.manifest["metrics"]["valid_auc"]}


def program_rows(bundle: Bundle, vocabulary: Vocabulary) -> Tensor:
    """The program's row of every training id, (N,) int64, by way of the vocabulary that ships."""
    lookup = bundle.vocabulary
    rows = torch.empty(vocabulary.num_embeddings, dtype=torch.int64)
    for field, keys in enumerate(vocabulary.keys):
        first = int(vocabulary.field_offsets[field])
        rows[first] = lookup.row(field, None)
        rows[first + 1 : first + 1 + len(keys)] = torch.from_numpy(
            lookup.rows(field, [str(key) for key in keys])
        )
    return rows


def field_sizes(run: Run, label: str) -> list[dict[str, Any]]:
    """Kept dimensions of every row, field by field."""
    sizes = compact_model(run, label).forms()[0].row_sizes().tolist()
    offsets = run.vocabulary.field_offsets.tolist()
    names = run.schema.names
    return [{"name": n, "sizes": sizes[offsets[i] : offsets[i + 1]]} for i, n in enumerate(names)]
