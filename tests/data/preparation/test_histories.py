"""Histories of a streamed table: those of the table in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ondevice.data import Dataset, read
from ondevice.data.preparation import whole
from ondevice.errors import UserError

from ..log import SCHEMA, log
from ..log import read as load

pytest.importorskip("duckdb", reason="tables are read with duckdb")
SPLITS = ("train", "valid", "test")


def rows_of(data: Dataset, name: str) -> list[tuple[list[int], int]]:
    split = data.split(name)
    return sorted(zip(split.ids.tolist(), split.labels.tolist(), strict=True))


def users_of(data: Dataset) -> list[tuple[list[int], list[int]]]:
    assert data.sequences is not None
    parts = (
        np.split(each, data.sequences.offsets[1:-1])
        for each in (data.sequences.items, data.sequences.division)
    )
    return sorted((items.tolist(), division.tolist()) for items, division in zip(*parts, strict=True))


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("only", [{}, {"only": "positive"}])
def test_a_streamed_table_has_the_same_histories(
    tmp_path: Path, only: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(read, "CHUNK_ROWS", 50)
    place, seen, thing = SCHEMA["fields"]
    schema = {**SCHEMA, "fields": [place, {**seen, **only}, thing]}
    in_memory = load(tmp_path, log(), schema)
    report = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    streamed = load(tmp_path, log(), schema, streamed=True)
    assert report == [line for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    assert streamed.vocabulary == in_memory.vocabulary
    assert np.array_equal(streamed.counts, in_memory.counts)
    assert [rows_of(streamed, name) for name in SPLITS] == [rows_of(in_memory, name) for name in SPLITS]
    assert users_of(streamed) == users_of(in_memory)
    assert streamed.sequences is not None
    assert in_memory.sequences is not None
    assert streamed.sequences.users.tolist() == in_memory.sequences.users.tolist()  # type: ignore[union-attr]


@pytest.mark.usefixtures("inline")
def test_rows_that_cannot_be_sorted_in_the_memory_allowed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "ROW_BYTES", 10**10)
    with pytest.raises(
        UserError,
        match=r"data.memory: got 2GB, but histories, sampled negatives and leave_last_out sort all 240 rows",
    ):
        load(tmp_path, log(), streamed=True)
