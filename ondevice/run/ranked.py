"""How the models of a run of ratings rank the catalogue (``run.rank``)."""

from __future__ import annotations

from typing import Any

from ondevice.recommender import Recommender
from ondevice.run.files import RunFiles
from ondevice.training.progress import Progress
from ondevice.training.rank_rows import Contexts, rank_rows
from ondevice.training.ranking import summary

RANKING = "ranking"
"""What an entry of ``metrics.json`` has them under."""


def measured(recommender: Recommender, contexts: Contexts) -> dict[str, Any]:
    """HR, NDCG, Recall, MRR and coverage, and of how many contexts."""
    figures = summary(rank_rows(recommender, contexts))
    return {"contexts": len(contexts.rows), "of_rows": contexts.num_positive, **figures}


def remember(
    files: RunFiles, label: str | None, recommender: Recommender, contexts: Contexts, progress: Progress
) -> None:
    """Measure a model and note it beside its AUC.

    Args:
        label: of a compact model; None for the dense one.
    """
    entry = files.state["dense"] if label is None else files.state["compact"][label]
    if RANKING in entry:
        return
    entry[RANKING] = figures = measured(recommender, contexts)
    progress.say(
        f"{label or 'dense'}: NDCG@10 {figures['ndcg@10']:.4f}, HR@10 {figures['hr@10']:.4f} in "
        f"{figures['contexts']:,} contexts"
    )
    files.remember()


def table_lines(rows: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """The models whose ranking was measured, a line each, under a line of names; none where none was.

    Args:
        rows: each model's name and its entry of ``metrics.json``.
    """
    ranked = [(name, entry[RANKING]) for name, entry in rows if RANKING in entry]
    if not ranked:
        return []
    names = ("hr@10", "ndcg@10", "recall@20", "mrr", "coverage@10")
    lines = [f"{'ranking':12} {'contexts':>9} " + " ".join(f"{name:>11}" for name in names)]
    for name, figures in ranked:
        line = " ".join(f"{figures[metric]:>11.4f}" for metric in names)
        lines.append(f"{name:12} {figures['contexts']:>9,} {line}")
    return lines
