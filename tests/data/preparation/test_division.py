"""Rows are divided the same, however they are cut into chunks; by time as a stable sort would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data.preparation.arrays import ArrayFile, write_arrays
from ondevice.data.preparation.chunk import ChunkId, write_chunk
from ondevice.data.preparation.division import ascending_bits, count_chunk, division_of
from ondevice.data.preparation.plan import Plan
from ondevice.data.schema import Field, Label, Schema
from ondevice.data.splits import split_rows
from ondevice.errors import UserError

from .rows import patient

pa = pytest.importorskip("pyarrow", reason="large data are read with pyarrow")

SCHEMA = Schema("small", (Field("n", "context", "integer"),), Label(column="y"))


def divided(
    folder: Path, cuts: list[int], split: str, times: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """The split of each of ``cuts[-1]`` rows of one file that is cut so into chunks."""
    source = {"kind": "text", "timed": times is not None}
    plan = Plan(folder, SCHEMA, source, [], split, seed, (0.5, 0.3, 0.2), None, "error")
    ids, rows = [], []
    for number, (start, stop) in enumerate(zip([0, *cuts], cuts, strict=False)):
        which = ChunkId(0, number)
        values = pa.array(np.arange(start, stop) % 3)
        part = [] if times is None else [times[start:stop]]
        lines = np.arange(start, stop)
        write_chunk(plan.chunk_path(which), SCHEMA, {"n": values}, np.zeros(stop - start), lines, part)
        ids.append(which)
        rows.append(stop - start)
    arrays = {
        "files": np.zeros(len(ids), np.int64),
        "numbers": np.arange(len(ids)),
        "rows": np.array(rows),
        "num_keys": np.ones(len(ids), np.int64),
    }
    write_arrays(folder / "parsed", arrays, skipped=0, cut=[0])
    result = []
    for which, given_ in zip(ids, division_of(plan), strict=True):
        counted = count_chunk(plan, which, given_)["rows"]
        file = ArrayFile(plan.counts_path(which))
        own_split = file.read("split")
        assert np.bincount(own_split, minlength=3).tolist() == counted
        train = (np.arange(len(own_split)) + int(sum(rows[: which.number])))[own_split == 0] % 3
        distinct = np.unique((np.arange(len(own_split)) + int(sum(rows[: which.number]))) % 3)
        assert file.read("counts").tolist() == [int((train == value).sum()) for value in distinct]
        result.append(own_split)
    return np.concatenate(result)


def test_chunks_do_not_matter(tmp_path: Path) -> None:
    for split in ("random", "temporal"):
        whole = divided(tmp_path / "a" / split, [1000], split)
        assert np.array_equal(divided(tmp_path / "b" / split, [1, 7, 500, 999, 1000], split), whole)


def test_a_random_split_has_the_fractions_but_for_chance(tmp_path: Path) -> None:
    split = divided(tmp_path / "a", [20_000], "random")
    shares = np.bincount(split) / len(split)
    assert np.abs(shares - [0.5, 0.3, 0.2]).max() < 4 * np.sqrt(0.25 / 20_000)
    other = divided(tmp_path / "b", [20_000], "random", seed=1)
    assert 0.3 < (other == split).mean() < 0.46  # 0.38 by chance


def test_the_order_of_rows(tmp_path: Path) -> None:
    split = divided(tmp_path, [3, 10], "temporal")
    assert split.tolist() == [0] * 5 + [1] * 3 + [2] * 2


times_strategy = st.lists(
    st.integers(-3, 3).map(float) | st.floats(allow_nan=False), min_size=5, max_size=40
).map(np.array)


@patient
@given(times=times_strategy, data=st.data())
def test_by_time_as_a_stable_sort(
    tmp_path_factory: pytest.TempPathFactory, times: np.ndarray, data: st.DataObject
) -> None:
    total = len(times)
    cuts = sorted({*data.draw(st.lists(st.integers(1, total - 1), max_size=4)), total})
    split = divided(tmp_path_factory.mktemp("times"), cuts, "temporal", times)
    expected = split_rows(total, "temporal", 0, (0.5, 0.3, 0.2), (times,))
    for s, rows in enumerate(expected.values()):
        assert sorted(rows.tolist()) == np.flatnonzero(split == s).tolist()


@patient
@given(st.lists(st.floats(allow_nan=False)))
def test_bits_ascend_as_numbers_do(numbers: list[float]) -> None:
    values = np.array(sorted(numbers), dtype=np.float64)
    bits = ascending_bits(values)
    assert ((bits[1:] > bits[:-1]) == (values[1:] > values[:-1])).all()
    assert ((bits[1:] == bits[:-1]) == (values[1:] == values[:-1])).all()


def test_too_few_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 rows are too few for the fractions"):
        divided(tmp_path, [2], "temporal")
