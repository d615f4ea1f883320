"""The hashing trick: which rows are shared, and by whom."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.config.file import from_dict
from ondevice.data.key_hash import key_hash, key_hashes
from ondevice.errors import UserError
from ondevice.forms.shared import SharedMap
from ondevice.forms.table import TableInfo
from ondevice.methods import METHODS
from ondevice.methods.selection import described, named, part_of, read_selection
from ondevice.recommender import pruned_id_map

from ...runs import laid_over


def test_the_hash_is_fnv_1a() -> None:
    """The test vectors that its authors publish."""
    assert (key_hash(""), key_hash("a"), key_hash("foobar")) == (0x811C9DC5, 0xE40C292C, 0xBF9CF968)
    assert key_hashes(["a", "foobar"]).tolist() == [0xE40C292C, 0xBF9CF968]
    assert key_hash("é") == key_hash(bytes([0xC3, 0xA9]).decode())


def test_keys_of_neighbouring_numbers_spread_evenly() -> None:
    """Chi-square of 6,000 keys in 1,000 rows: 999 degrees of freedom, standard deviation 45."""
    counts = torch.bincount(
        torch.from_numpy(key_hashes(map(str, range(6000))) % 1000), minlength=1000
    ).double()
    assert float(((counts - 6).square() / 6).sum()) < 999 + 5 * 45


def compact(
    counts: list[int], offsets: list[int], target: int, keys: list[str | None] | None = None
) -> SharedMap:
    info = TableInfo(torch.tensor(offsets), torch.tensor(counts), None if keys is None else lambda: keys)
    form = METHODS["hashing"](info, 4, dim=2).compact(target)
    assert isinstance(form, SharedMap)
    return form


def test_rows_by_hand() -> None:
    """Fields of two and five seen values; six values at two a row are three rows, one and two."""
    keys = [None, "m", "f", None, "a", "b", "c", "d", "e"]
    counts, offsets = [0, 9, 9, 0, 3, 3, 3, 3, 3], [0, 3, 9]
    form = compact(counts, offsets, 8, keys)
    assert form.sizes.tolist() == [0, 2, 2, 0, 2, 2, 0, 0, 0]
    assert form.modulus.tolist() == [0, 2]
    assert form.shared.tolist() == [0, 1, 2, 3, *(4 + key_hash(key) % 2 for key in "abcde")]
    assert len(set(form.shared.tolist()[4:])) == 2
    whole = compact(counts, offsets, 14, keys)
    assert (whole.modulus.tolist(), whole.num_kept()) == ([0, 0], 14)
    assert whole.shared.tolist() == list(range(9))
    tight = compact(counts, offsets, 2, keys)  # a value for each field
    assert (tight.sizes.tolist(), tight.modulus.tolist()) == ([0, 1, 0, 0, 1, 0, 0, 0, 0], [1, 1])
    with pytest.raises(UserError, match="1 values are fewer than the 2 fields"):
        compact(counts, offsets, 1, keys)


def test_unknown_values_that_were_seen_keep_a_row_of_their_own() -> None:
    form = compact([5, 3, 3, 3, 3], [0, 5], 6, [None, "a", "b", "c", "d"])
    assert form.sizes.tolist() == [2, 2, 2, 0, 0]
    assert (form.shared[0], form.modulus.tolist()) == (0, [2])
    assert set(form.shared[1:].tolist()) <= {1, 2}


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 200), st.integers(1, 6))
def test_no_more_than_the_target_and_nobody_reads_nothing(values: list[int], target: int, dim: int) -> None:
    offsets = [0]
    for count in values:
        offsets.append(offsets[-1] + count + 1)
    counts = [int(i not in offsets) for i in range(offsets[-1])]
    info = TableInfo(torch.tensor(offsets), torch.tensor(counts))
    method = METHODS["hashing"](info, 8, dim=dim)
    if target < len(values):
        with pytest.raises(UserError):
            method.compact(target)
        return
    form = method.compact(target)
    assert form.num_kept() <= target
    seen = torch.tensor(counts) > 0
    assert bool((form.sizes[form.shared[seen]] > 0).all())
    assert torch.equal(info.field_of()[form.shared], info.field_of())
    row = int(form.sizes.max())
    more = sum(min(v, int(m) + 1 if m else v) for v, m in zip(values, form.modulus, strict=True)) * row
    assert more > target or not form.modulus.any()  # one row more in each hashed field is too much


def test_removed_ids_and_their_readers_read_the_unknown_id() -> None:
    info = TableInfo(torch.tensor([0, 3, 6]), torch.tensor([0, 1, 1, 0, 1, 1]))
    form = SharedMap(
        torch.tensor([0, 2, 0, 0, 2, 0]), 2, torch.tensor([0, 1, 1, 3, 4, 4]), torch.tensor([1, 1])
    )
    assert pruned_id_map(info, [form]).tolist() == [0, 1, 1, 3, 4, 4]
    removed = form.without(torch.tensor([True, True, True, False, False, False]))
    assert isinstance(removed, SharedMap)
    assert pruned_id_map(info, [removed]).tolist() == [0, 0, 0, 3, 4, 4]


def test_a_form_reads_back_from_tensors() -> None:
    form = compact([0, 1, 1, 1], [0, 4], 4)
    again = read_selection(described(form), part_of(named(form, "7/0"), "7/0"))
    assert isinstance(again, SharedMap)
    assert all(torch.equal(getattr(form, n), getattr(again, n)) for n in ("sizes", "shared", "modulus"))
    assert again.dim == form.dim


def test_a_trained_table_still_knows_who_shares() -> None:
    info = TableInfo(torch.tensor([0, 4]), torch.tensor([0, 1, 1, 1]))
    form = METHODS["hashing"](info, 4, dim=2).compact(4)
    assert isinstance(form, SharedMap)
    compact = form.table(info).form
    assert (compact.dim, compact.sizes.tolist()) == (2, form.sizes.tolist())
    assert torch.equal(compact.shared, form.shared)
    assert torch.equal(compact.modulus, form.modulus)


def test_a_model_of_several_budgets_cannot_share_rows() -> None:
    """A smaller modulus sends keys to other rows: the rows of the larger model are no part of the smaller one."""
    values = {"compact": {"sizes": {"name": "hashing"}, "budgets": [100, 200], "train": {"elastic": False}}}
    method = METHODS["hashing"](TableInfo(torch.tensor([0, 4]), torch.ones(4)), 4)
    method.check(from_dict(values))
    with pytest.raises(
        UserError, match=r"compact\.train\.elastic: method 'hashing' .*set compact\.train\.elastic=false"
    ):
        method.check(from_dict(laid_over(values, {"compact": {"train": {"elastic": True}}})))
