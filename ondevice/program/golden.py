"""Golden cases: raw values with the ids that they must become and what the program must answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ondevice.errors import UserError
from ondevice.program.best_items import Asked, leaves_out

TOLERANCE = 1e-3
"""How far a score may be from the recorded one where the manifest says nothing: that of another processor is."""
NUM_BEST = 3
"""Recommended items that a case of the next item records."""


class Moment(NamedTuple):
    """When a history's items were and when it is asked, in seconds, for a bundle that reads time gaps."""

    times: Sequence[float | None] | None = None
    now: float | None = None


NO_MOMENT = Moment()


class Answering(Asked, Protocol):
    """What is asked of a bundle: see `ondevice.program.bundle.Bundle`."""

    def score_rows(self, rows: np.ndarray) -> np.ndarray: ...

    def rank_rows(self, context: np.ndarray, items: np.ndarray) -> np.ndarray: ...

    def recommend(
        self,
        context: None = None,
        k: int = 10,
        *,
        history: Sequence[Any] | None = None,
        times: Sequence[float | None] | None = None,
        now: float | None = None,
    ) -> list[dict[str, Any]]: ...


def golden_case(bundle: Answering, raw: Mapping[str, Any], moment: Moment = NO_MOMENT) -> dict[str, Any]:
    """Raw values with the ids they become, the score they get and, of the next item, what is recommended after them.

    Args:
        raw: of all fields.
        moment: of asking.
    """
    rows, schema = bundle.encode(raw), bundle.schema
    case: dict[str, Any] = {"raw": dict(raw)}
    if schema.num_gaps:
        gaps = bundle.raw.gaps(raw.get(schema.histories[0].name) or [], *moment)
        case |= {"times": list(moment.times or ()), "now": moment.now, "gaps": gaps.tolist()}
        context = np.concatenate([rows[list(schema.context_columns)], gaps])
        score = bundle.rank_rows(context, rows[None, list(schema.item_columns)])[0]
    else:
        score = bundle.score_rows(rows[None])[0]
    # The fewest digits that read back as the same float32, so that a reader can compare exactly.
    case |= {"ids": rows.tolist(), "score": float(str(score))}
    method = bundle.manifest["methods"].get("recommend")
    if leaves_out(method):
        history = raw.get(bundle.schema.histories[0].name) or []
        best = bundle.recommend(
            history=history, k=min(NUM_BEST, method["k"]), times=moment.times, now=moment.now
        )
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
        again = golden_case(bundle, case["raw"], Moment(case.get("times"), case.get("now")))
        # Items whose scores are as near as the tolerance may change places, so that scores are compared, not keys.
        recorded, given = (
            [each["score"], *each.get("best", {"scores": ()})["scores"]] for each in (case, again)
        )
        same = all(again.get(name) == case.get(name) for name in ("ids", "gaps")) and len(given) == len(
            recorded
        )
        if same:
            worst = max(worst, *(abs(a - b) for a, b in zip(given, recorded, strict=True)))
        if not same or not worst <= allowed:
            raise UserError(f"{bundle.path}: golden case {number} gives {again}, recorded {case}")
    return worst
