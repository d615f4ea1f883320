"""Sampled negatives never hit a positive, and come in the proportions asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ondevice.data import load_dataset, negatives
from ondevice.data.dataset import Dataset
from ondevice.data.negatives import sample_negatives
from ondevice.data.schema import Field, Label, Schema
from ondevice.data.splits import split_rows
from ondevice.errors import UserError


def schema(negatives: int, sampling: str) -> Schema:
    fields = (Field("user", "context", "integer"), Field("item", "item", "string"))
    label = Label(positive_only=True, negatives=negatives, sampling=sampling, context_key="user")
    return Schema("seen", fields, label, "item")


def sample(
    pairs: list[tuple[int, int]], rows: dict[str, np.ndarray], label: Schema, seed: int
) -> dict[str, Any]:
    users, items = (np.array(each, dtype=np.int64) for each in zip(*pairs, strict=True))
    return sample_negatives(label, items, users, rows, seed)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), min_size=20, max_size=80),
    st.integers(1, 5),
    st.sampled_from(["uniform", "popularity"]),
    st.integers(0, 3),
)
def test_never_a_positive_of_any_split(
    pairs: list[tuple[int, int]], negatives: int, sampling: str, seed: int
) -> None:
    rows = split_rows(len(pairs), "random", seed, (0.6, 0.2, 0.2))
    try:
        sampled = sample(pairs, rows, schema(negatives, sampling), seed)
    except UserError:  # few items: some split may have no free pair at all
        return
    known = {pairs[row][1] for row in rows["train"].tolist()}
    for name, chosen in rows.items():
        result = sampled[name]
        positives = result.labels == 1
        assert np.array_equal(result.context_rows[positives], chosen)
        assert np.array_equal(result.item_rows[positives], chosen)
        assert len(result.labels) <= len(chosen) * (1 + negatives)
        for context, item in zip(result.context_rows[~positives], result.item_rows[~positives], strict=True):
            assert (pairs[context][0], pairs[item][1]) not in pairs
            assert pairs[item][1] in known


def many(num_users: int = 60) -> list[tuple[int, int]]:
    """Each user has item 0; every third has item 1, every second one of eight others."""
    pairs = [(user, 0) for user in range(num_users)] + [(user, 1) for user in range(0, num_users, 3)]
    return pairs + [(user, 2 + user // 2 % 8) for user in range(0, num_users, 2)]


def counted(sampling: str) -> np.ndarray:
    pairs = many(3000)
    rows = split_rows(len(pairs), "random", 0, (0.8, 0.1, 0.1))
    train = sample(pairs, rows, schema(4, sampling), 0)["train"]
    assert len(train.labels) == 5 * len(rows["train"])  # everybody has free items
    return np.bincount([pairs[row][1] for row in train.item_rows[train.labels == 0]], minlength=10)


def test_uniform_and_by_popularity() -> None:
    uniform, popular = counted("uniform"), counted("popularity")
    assert uniform[0] == popular[0] == 0  # everybody has item 0
    assert uniform[2:].max() < 1.3 * uniform[2:].min()
    # Item 1 has 1,000 rows, each of the eight others 188. Of all 5,500 rows 2,500 are of its owners, who
    # get only the others: 0.4 * 3000 = 1200 of it against 0.075 * 3000 + 2500 / 8 = 538 of each other one.
    assert popular[1] > 2 * popular[2:].mean()
    assert uniform[1] < uniform[2:].mean()


def test_the_seed_decides() -> None:
    pairs = many()
    rows = split_rows(len(pairs), "random", 0, (0.8, 0.1, 0.1))
    first, again, other = (
        sample(pairs, rows, schema(2, "uniform"), seed)["train"].item_rows.tolist() for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other


def test_who_has_everything_gets_no_negatives(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [(1, item) for item in range(5)] + [(user, user % 5) for user in range(2, 32)]
    rows = {"train": np.arange(25), "valid": np.arange(25, 30), "test": np.arange(30, 35)}
    train = sample(pairs, rows, schema(3, "uniform"), 0)["train"]
    owners = np.array([pairs[row][0] for row in train.context_rows])
    assert train.labels[owners == 1].tolist() == [1] * 5
    assert (owners != 1).sum() == 20 * 4
    assert "15 negatives left out" in capsys.readouterr().err


@pytest.mark.parametrize("rounds", [0, 1, 20])
def test_who_has_nearly_everything_gets_what_is_left(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of 302 items are free, one nine times as popular, whether they are hit by chance or looked up."""
    monkeypatch.setattr(negatives, "ROUNDS", rounds)
    pairs = [(1, item) for item in range(300)]
    pairs += [(user, 300) for user in range(2, 92)] + [(user, 301) for user in range(92, 102)]
    rows = {"train": np.arange(400), "valid": np.array([0]), "test": np.array([1])}
    train = sample(pairs, rows, schema(4, "popularity"), 0)["train"]
    drawn = train.item_rows[(train.labels == 0) & (train.context_rows < 300)]
    counts = np.bincount([pairs[row][1] for row in drawn], minlength=302)
    assert counts[:300].sum() == 0
    assert counts.sum() == 1200
    assert 1020 < counts[300] < 1140  # 1080 on average, 10 its standard deviation


def test_nothing_to_sample() -> None:
    pairs = [(user, 0) for user in range(10)]
    rows = split_rows(10, "random", 0, (0.8, 0.1, 0.1))
    with pytest.raises(UserError, match="no negative can be drawn"):
        sample(pairs, rows, schema(1, "uniform"), 0)


YAML = """
name: seen
fields:
  - {name: user, side: context, kind: integer}
  - {name: device, side: context, kind: string}
  - {name: item, side: item, kind: string}
  - {name: shop, side: item, kind: string}
label: {positive_only: true, negatives: 4, sampling: popularity, context_key: user}
item_key: item
"""


def load(tmp_path: Path, **options: Any) -> Dataset:
    (tmp_path / "s.yaml").write_text(YAML)
    lines = [f"{user},phone{user % 3},i{item},shop{item % 2}" for user, item in many()]
    (tmp_path / "t.csv").write_text("user,device,item,shop\n" + "\n".join(lines) + "\n")
    return load_dataset("table", schema=tmp_path / "s.yaml", path=tmp_path / "t.csv", **options)


def test_an_encoded_table_of_positives(tmp_path: Path) -> None:
    data = load(tmp_path)
    assert data.train.labels.mean() == pytest.approx(0.2)
    assert len(data.train) == 5 * 88  # 110 positives, 80 %
    positives = {(user, f"i{item}") for user, item in many()}
    for split in ("train", "valid", "test"):
        rows = data.raw_rows(split, range(len(data.split(split))))
        for row, label in zip(rows, data.split(split).labels, strict=True):
            if row["user"] is not None:  # the context side belongs together, and so does the item side
                assert row["device"] in (f"phone{row['user'] % 3}", None)
            if row["item"] is not None:
                assert row["shop"] == f"shop{int(row['item'][1:]) % 2}"
            if row["user"] is not None and row["item"] is not None:
                assert ((row["user"], row["item"]) in positives) == bool(label)
    assert data.counts.sum() == len(data.train) * 4
    assert load(tmp_path, seed=1).train.ids.tolist() != data.train.ids.tolist()
