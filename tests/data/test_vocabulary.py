"""Ids of known and unknown values, whatever the keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data.schema import Field
from ondevice.data.vocabulary import Vocabulary
from ondevice.errors import UserError
from tests.vocabularies import fitted

USER = Field("user", "context", "integer")
ZIP = Field("zip", "context", "string")
TIME = Field("time", "context", "integer", transform="log_bucket", origin=None)

integers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12)


def small() -> Vocabulary:
    return fitted([USER, ZIP], [[7, 3, "7", None], ["02138", "2138", "", "x"]])


def test_ids_by_hand() -> None:
    vocabulary = small()
    assert vocabulary.field_offsets.tolist() == [0, 3, 7]
    assert vocabulary.num_embeddings == 7
    assert vocabulary.encode_column(0, (3, "7", 8, None, "x")).tolist() == [1, 2, 0, 0, 0]
    texts = ("02138", "2138", 2138, "x", "y", "")
    assert vocabulary.encode_column(1, texts).tolist() == [4, 5, 5, 6, 3, 3]
    assert [vocabulary.key_of(i) for i in range(7)] == [None, 3, 7, None, "02138", "2138", "x"]
    assert vocabulary.encode_row({"zip": "x", "user": 3}).tolist() == [1, 6]
    assert vocabulary.encode_row({}).tolist() == [0, 3]
    assert vocabulary.encode_row({}).dtype == np.int64


def test_a_row_with_a_strange_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"'usr' is not a field .did you mean 'user'"):
        small().encode_row({"usr": 3})


def test_ids_outside_are_refused() -> None:
    for wrong in (-1, 7):
        with pytest.raises(ValueError, match="outside 0 to 6"):
            small().key_of(wrong)


def test_rare_values_share_the_unknown_id() -> None:
    vocabulary = fitted([Field("zip", "context", "string", min_count=2)], [["a", "a", "b", "c", "c", "c"]])
    assert vocabulary.keys == [["a", "c"]]
    assert vocabulary.encode_column(0, ["b"])[0] == 0


def test_open_origin_is_the_smallest_training_value() -> None:
    vocabulary = fitted([TIME], [["1010", 1000, None, 1100.0]])  # 10 -> 5, 0 -> 1, 100 -> 21
    assert vocabulary.fields[0].origin == 1000
    assert vocabulary.keys[0].tolist() == [1, 5, 21]  # type: ignore[union-attr]
    assert vocabulary.encode_column(0, [1009])[0] == 0  # 9: ln 9 = 2.197, squared 4.83
    assert [vocabulary.encode_column(0, [vocabulary.raw_of(i)])[0] for i in range(1, 4)] == [1, 2, 3]


@given(st.lists(integers), st.lists(texts), st.lists(integers), st.lists(texts))
def test_every_known_value_has_its_own_id_and_comes_back(
    users: list[int], zips: list[str], other_users: list[int], other_zips: list[str]
) -> None:
    vocabulary = fitted([USER, ZIP], [users, zips])
    offsets = vocabulary.field_offsets
    assert offsets[-1] == 2 + len(set(users)) + len(set(zips))
    for field, (known, other) in enumerate([(users, other_users), (zips, other_zips)]):
        ids = vocabulary.encode_column(field, [*known, *other])
        assert ((ids >= offsets[field]) & (ids < offsets[field + 1])).all()
        for raw, result in zip([*known, *other], ids, strict=True):
            assert vocabulary.key_of(result) == (raw if raw in known else None)
            assert vocabulary.field_of(result) == field
    assert len(set(vocabulary.encode_column(0, users))) == len(set(users))


@given(st.lists(integers), st.lists(texts))
def test_save_and_load(tmp_path_factory: pytest.TempPathFactory, users: list[int], zips: list[str]) -> None:
    path = tmp_path_factory.mktemp("v") / "vocabulary.npz"
    vocabulary = fitted([USER, ZIP, TIME], [users, zips, users])
    vocabulary.save(path)
    loaded = Vocabulary.load(path)
    assert loaded == vocabulary
    assert loaded.fields == vocabulary.fields
    assert np.array_equal(loaded.field_offsets, vocabulary.field_offsets)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.npz"
    small().save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="not a whole vocabulary file"):
        Vocabulary.load(path)
    with pytest.raises(UserError, match="not a whole vocabulary file"):
        Vocabulary.load(tmp_path / "none.npz")


def test_keys_must_ascend() -> None:
    for wrong in ([2, 1], [1, 1]):
        with pytest.raises(ValueError, match="must ascend"):
            Vocabulary([USER], [np.array(wrong)])
    with pytest.raises(ValueError, match="must ascend"):
        Vocabulary([ZIP], [["b", "a"]])
