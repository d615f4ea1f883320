"""Counts of arm64 instructions on their way into a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ondevice.bench.dense.instructions import read_counts
from ondevice.errors import UserError

from .. import sample

COUNTS = {
    "int8": {"100": 1000, "1000": 10000},
    "20000": {"100": 500, "1000": 4000},
}


def write(folder: Path, **entries: Any) -> Path:
    content = {"models": {"int8": "a", "20000": "b"}, "instructions": COUNTS, **entries}
    path = folder / "counts.json"
    path.write_text(json.dumps(content))
    return path


def test_counts_are_read(tmp_path: Path) -> None:
    assert read_counts(write(tmp_path), {"20000": "b", "10000": "c"}) == COUNTS


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"instructions": {}}, "has no instructions and models; count again"),
        ({"models": None}, "has no instructions and models"),
        ({"models": {}}, "counts another program of 20000; count again"),
        ({"instructions": {"ours": {"100": 5}}}, "'ours' is none of fp32, int8, int4, int2, 20000; name it"),
        ({"instructions": {"int8": {"100": -5}}}, "int8 has no numbers by candidates"),
        ({"instructions": {"int8": {"many": 5}}}, "int8 has no numbers by candidates"),
        ({"instructions": {"int8": {"1": 5}, "fp32": {"2": 5}}}, "fp32 has other numbers of candidates"),
    ],
)
def test_counts_that_are_not_those_of_the_report(
    tmp_path: Path, entries: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_counts(write(tmp_path, **entries), {"20000": "b"})
    assert "\n" not in str(error.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_counts(tmp_path / "none.json", {})


def test_the_page_shows_them_over_the_reference() -> None:
    pytest.importorskip("matplotlib")
    from ondevice.bench.report.page import render
    from ondevice.bench.report.report import bundle_report

    report = {**sample.report(), "arm64_instructions": COUNTS}
    page = render(report)
    section = page[page.index("<h2>arm64 instructions") : page.index("<h2>Parity")]
    assert "<td>500</td><td>0.50×</td><td>4,000</td><td>0.40×</td>" in section
    assert "arm64 instructions" not in render(sample.report())
    assert bundle_report(report, "20000")["arm64_instructions"] == COUNTS
