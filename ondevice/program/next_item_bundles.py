"""From a run of the next item to the bundles of its compact models: what ``export/to_pte.py`` calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ondevice.config.budget import parse_budget
from ondevice.errors import BudgetTooSmall, UserError
from ondevice.program.next_item_export import ExportedNextItem, export_next_item
from ondevice.run.budgets import USED
from ondevice.run.directory import Run


def export_next_item_run(
    path: str | Path,
    *,
    budgets: Sequence[str] = (),
    labels: Sequence[str] = (),
    quantization: str = "int8",
    catalog: bool = False,
    top_k: int = 100,
    output: str | Path | None = None,
    check: bool = True,
    data: Mapping[str, Any] | None = None,
) -> list[ExportedNextItem]:
    """Export the compact models of a run of the next item, or the dense one where it has no other.

    Args:
        path: the run directory.
        budgets: bytes of the whole bundle but for titles (``64KB``); for each the largest compact model that fits.
        labels: compact models to export, by label; with neither, all of them.
        output: where to write: the directory of a single bundle, or of one directory per bundle.

    The others are those of `export_next_item`.

    Raises: UserError: when a budget cannot be met, naming the smallest bundle.
    """
    known = list(Run(path, data).metrics.get("budgets", {}))
    if (budgets or labels) and not known:
        raise UserError(
            f"{path}: a run without compact models; train it with compact.budgets=[64KB], or export the dense model "
            "without --budget and --label"
        )
    if quantization != "int8" and known:
        raise UserError(f"--quantize {quantization}: compact models are int8; leave it out")
    labels = list(labels) if labels or budgets else known
    base = None if output is None else Path(output)
    number = len(labels) + len(budgets) or 1

    def export(label: str | None, place: str | None = None) -> ExportedNextItem:
        where = base
        if place is not None:
            folder = Path(path) / "bundles" if base is None else base
            where = folder if number == 1 and base is not None else folder / place
        return export_next_item(
            path,
            label=label,
            quantization=quantization,
            catalog=catalog,
            top_k=top_k,
            output=where,
            check=check,
            data=data,
        )

    if not known:
        return [export(None)]
    made = [export(label, label) for label in labels]
    for budget in budgets:
        made.append(_fitting(path, budget, known, lambda label, place: export(label, place)))
    return made


def _fitting(path: str | Path, budget: str, known: Sequence[str], export: Any) -> ExportedNextItem:
    """The largest compact model whose bundle fits a budget."""
    unit, limit = parse_budget(budget)
    if unit != "bytes":
        raise UserError(f"--budget {budget}: give the bytes of the whole bundle, such as 64KB or 1.5MB")
    entries = Run(path).metrics["budgets"]
    smallest = None
    for label in sorted(known, key=lambda label: -entries[label]["estimated_bytes"]):
        if USED * entries[label]["estimated_bytes"] > limit and label != known[-1]:
            continue
        made: ExportedNextItem = export(label, budget.replace(" ", ""))
        if made.bundle.needed_bytes <= limit:
            return made
        smallest = made
    assert smallest is not None, "a run has a compact model"
    raise BudgetTooSmall(
        f"--budget {budget}: the smallest bundle of {path} has {smallest.bundle.needed_bytes:,} bytes; train a smaller "
        "one with compact.budgets=[...], or a smaller compact.model"
    )
