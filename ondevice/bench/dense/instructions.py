"""Counts of arm64 instructions, as ``android_demo/tools/arm64.py count --out FILE`` writes them, for a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ondevice.bench.dense.baselines import FORMATS
from ondevice.errors import DataError

HOW_TO_COUNT = "count again: python android_demo/tools/arm64.py count BUNDLE … --out FILE"


def read_counts(path: str | Path, programs: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Instructions of one ranking by program and number of candidates.

    Args:
        path: the file.
        programs: SHA-256 of model.pte of each bundle of the report, by name. The dense programs are named by
            their format.

    Raises: DataError: when the file is none, or counts another program than the report's.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"--arm64-counts {path}: cannot be read ({error}); {HOW_TO_COUNT}") from None
    counts = content.get("instructions") if isinstance(content, dict) else None
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(counts, dict) or not counts or not isinstance(models, dict):
        raise DataError(f"--arm64-counts {path}: has no instructions and models; {HOW_TO_COUNT}")
    for name, by_candidates in counts.items():
        good = isinstance(by_candidates, dict) and by_candidates
        if not good or not all(c.isdigit() and type(n) is int and n > 0 for c, n in by_candidates.items()):
            raise DataError(f"--arm64-counts {path}: {name} has no numbers by candidates; {HOW_TO_COUNT}")
        if set(by_candidates) != set(next(iter(counts.values()))):
            raise DataError(f"--arm64-counts {path}: {name} has other numbers of candidates; {HOW_TO_COUNT}")
        if name not in FORMATS and name not in programs:
            allowed = ", ".join([*FORMATS, *programs])
            raise DataError(f"--arm64-counts {path}: '{name}' is none of {allowed}; name it NAME=BUNDLE")
        if name in programs and models.get(name) != programs[name]:
            raise DataError(f"--arm64-counts {path}: counts another program of {name}; {HOW_TO_COUNT}")
    return counts
