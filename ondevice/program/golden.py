"""Golden cases: raw values with the ids that they must become and what the program must answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ondevice.errors import UserError
from ondevice.program.best_items import Asked, leaves_out

TOLERANCE = 1e-3
"""How far a score may be from the recorded one where the manifest says nothing: that of another processor is."""
NUM_BEST = 3
"""Recommended items that a case of the next item records."""


class Answering(Asked, Protocol):
    """What is asked of a bundle: see `ondevice.program.bundle.Bundle`."""

    def score_rows(self, rows: np.ndarray) -> np.ndarray: ...

    def recommend(
        self, context: None = None, k: int = 10, *, history: Sequence[Any] | None = None
    ) -> list[dict[str, Any]]: ...


def golden_case(bundle: Answering, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Raw values with the ids they become, the score they get and, of the next item, what is recommended after them."""
    rows = bundle.encode(raw)
    # The fewest digits that read back as the same float32, so that a reader can compare exactly.
    case = {"raw": dict(raw), "ids": rows.tolist(), "score": float(str(bundle.score_rows(rows[None])[0]))}
    method = bundle.manifest["methods"].get("recommend")
    if leaves_out(method):
        history = raw.get(bundle.schema.histories[0].name) or []
        best = bundle.recommend(history=history, k=min(NUM_BEST, method["k"]))
        case["best"] = {
            "items": [each["item"] for each in best],
            "scores": [float(str(np.float32(each["score"]))) for each in best],
        }
    return case


def check_golden(bundle: Answering, tolerance: float | None = None) -> float:
    """The largest difference of a score here from the one recorded, of a case or of what is recommended.

    Args:
        bundle: whose manifest has the cases.
        tolerance: the most that is allowed; None for what the manifest allows.

    Raises: UserError: when a difference is above it, or ids or the number of recommended items differ.
    """
    allowed = bundle.manifest.get("golden_tolerance", TOLERANCE) if tolerance is None else tolerance
    worst = 0.0
    for number, case in enumerate(bundle.manifest["golden"], 1):
        again = golden_case(bundle, case["raw"])
        # Items whose scores are as near as the tolerance may change places, so that scores are compared, not keys.
        recorded, given = (
            [each["score"], *each.get("best", {"scores": ()})["scores"]] for each in (case, again)
        )
        same = again["ids"] == case["ids"] and len(given) == len(recorded)
        if same:
            worst = max(worst, *(abs(a - b) for a, b in zip(given, recorded, strict=True)))
        if not same or not worst <= allowed:
            raise UserError(f"{bundle.path}: golden case {number} gives {again}, recorded {case}")
    return worst
