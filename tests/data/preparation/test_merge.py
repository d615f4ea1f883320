"""A vocabulary merged part by part is the one that is made in one go, and the one of the counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondevice.data.preparation import merge
from ondevice.data.preparation.arrays import ArrayFile, key_arrays, read_keys, write_arrays
from ondevice.data.preparation.chunk import ChunkId, write_chunk
from ondevice.data.preparation.division import count_chunk
from ondevice.data.preparation.merge import merge_field
from ondevice.data.preparation.plan import Plan, open_chunk
from ondevice.data.schema import Field, Label, Schema

pa = pytest.importorskip("pyarrow", reason="large data are read with pyarrow")

FIELDS = (
    Field("n", "context", "integer", min_count=3, missing=-9),
    Field("t", "context", "string", min_count=2),
    Field("never", "context", "string", min_count=1000),
)
SCHEMA = Schema("small", FIELDS, Label(column="y"))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Nine chunks, one of them empty; the texts have gaps, and letters of two bytes."""
    plan = Plan(tmp_path, SCHEMA, {"kind": "text"}, [], "random", 0, (0.7, 0.2, 0.1), None, "error")
    random = np.random.default_rng(0)
    metas, ids = [], []
    for number in range(9):
        rows = 0 if number == 4 else 300
        values = random.zipf(1.3, rows) % 200 - 20
        texts = [None if v % 7 == 0 else f"{'é' * (v % 3)}{v}" for v in values.tolist()]
        columns = {
            "n": pa.array(values),
            "t": pa.array(texts, pa.string()),
            "never": pa.array(texts, pa.string()),
        }
        which = ChunkId(number // 4, number % 4)
        lines = np.arange(300 * (number % 4), 300 * (number % 4) + rows)
        metas.append(write_chunk(plan.chunk_path(which), SCHEMA, columns, np.zeros(rows), lines))
        count_chunk(plan, which, [])
        ids.append(which)
    arrays = {
        "files": np.array([w.file for w in ids]),
        "numbers": np.array([w.number for w in ids]),
        "rows": np.array([m["rows"] for m in metas]),
        "num_keys": np.array([m["num_keys"] for m in metas]).ravel(),
    }
    write_arrays(tmp_path / "parsed", arrays, skipped=0, cut=[0])
    return plan


def outcome(plan: Plan, field: int, limit: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    result = merge_field(plan, field, limit)
    return result, {
        part: plan.field_path(field, part).read_bytes() for part in ("keys", "ends", "counts", "ids")
    }


@pytest.mark.parametrize("field", [0, 1, 2])
def test_parts_do_not_change_it(plan: Plan, monkeypatch: pytest.MonkeyPatch, field: int) -> None:
    expected = outcome(plan, field, 1 << 40)
    monkeypatch.setattr(merge, "SAMPLES", 100)
    calls: list[int] = []
    original = merge._merge
    monkeypatch.setattr(merge, "_merge", lambda *a: calls.append(len(a[0])) or original(*a))
    for limit in (40_000, 5_000, 1_000):
        assert outcome(plan, field, limit) == expected
    assert len(calls) > 50


def test_it_is_that_of_the_counts(plan: Plan) -> None:
    for f, field in enumerate(FIELDS):
        counts: Counter[Any] = Counter()
        for which in plan.parsed.ids:
            keys = [None, *open_chunk(plan, which).keys(f).to_pylist()]
            train = ArrayFile(plan.counts_path(which)).read("split") == 0
            counts.update(keys[code] for code in open_chunk(plan, which).codes(f)[train])
        known = sorted(k for k, count in counts.items() if k is not None and count >= field.min_count)
        result, files = outcome(plan, f, 1 << 40)
        assert result == {"known": len(known), "occurrences": sum(counts[k] for k in known)}
        assert np.frombuffer(files["counts"], np.int64).tolist() == [counts[k] for k in known]
        if f == 0:
            assert np.frombuffer(files["keys"], np.int64).tolist() == known
        else:
            ends = np.frombuffer(files["ends"], np.int64).tolist()
            cut = [files["keys"][a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]
            assert cut == known
        numbers = np.frombuffer(files["ids"], np.int32)
        place = 0
        for which in plan.parsed.ids:
            keys = open_chunk(plan, which).keys(f).to_pylist()
            expected = [known.index(k) + 1 if k in known else 0 for k in keys]
            assert numbers[place : place + len(keys)].tolist() == expected
            place += len(keys)


@pytest.mark.parametrize("keys", [np.array([-5, 0, 7]), ["", "a", "é", "zz"], np.empty(0, np.int64), []])
def test_any_stretch_of_keys_can_be_read(tmp_path: Path, keys: Any) -> None:
    write_arrays(tmp_path / "file", {"first": np.arange(3), **key_arrays("keys", keys)}, note="é")
    file = ArrayFile(tmp_path / "file")
    assert file.meta == {"note": "é"}
    listed = list(keys)
    for start in range(len(listed) + 1):
        for stop in range(start, len(listed) + 1):
            assert read_keys(file, "keys", start, stop).to_pylist() == listed[start:stop]
