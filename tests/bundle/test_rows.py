"""Program rows: the order by hand, and that every training id is found again through the vocabulary."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.bundle.row_lookup import RowLookup
from ondevice.bundle.rows import order_rows
from ondevice.bundle.vocabulary_file import FieldKeys, Group
from ondevice.data import Dataset
from ondevice.forms.base import RowLayout
from ondevice.forms.mask import Mask
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.recommender import pruned_id_map

from ..program import shop


def test_rows_of_two_small_fields_by_hand() -> None:
    #        field 0: unknown, 5, 7, 02138   field 1: unknown, "b", "a"
    keys = [None, "5", "7", "02138", None, "b", "a"]
    sizes = Sizes(torch.tensor([4, 2, 4, 4, 0, 0, 2]), 4)
    first = Sizes(torch.tensor([0, 1, 1, 0, 0, 1, 1]), 1)
    order = order_rows([0, 4, 7], [sizes, first], keys)
    # size 4: with first-order "7"; without: unknown of field 0, then 02138. size 2: 5, a. size 0: b.
    assert order.ids.tolist() == [2, 0, 3, 1, 6, 5]
    assert order.row_of.tolist() == [1, 3, 0, 2, 6, 5, 4]
    assert order.num_rows == 6
    assert order.first_order_rows == 6
    assert order.unknown_rows.tolist() == [1, 6]  # that of field 1 keeps nothing: the row of zeros
    assert order.field_keys == [
        FieldKeys(1, (Group(0, 1, [7]), Group(2, 6, [2138]), Group(3, 1, [5]))),
        FieldKeys(6, (Group(4, 0, ["a"]), Group(5, 0, ["b"]))),
    ]


def test_classes_keep_rows_together_that_sizes_would_part() -> None:
    sizes = Sizes(torch.tensor([1, 2, 1, 2]), 2)
    assert order_rows([0, 4], [sizes]).ids.tolist() == [1, 3, 0, 2]
    together = order_rows([0, 4], [sizes], layout=RowLayout(np.array([1, 1, 1, 1])))
    assert together.ids.tolist() == [0, 1, 2, 3]
    assert len(together.field_keys[0].groups) == 1


def test_pruned_ids_read_their_fields_unknown_row() -> None:
    sizes = Sizes(torch.tensor([2, 0, 2, 0, 0, 2]), 2)
    order = order_rows([0, 3, 6], [sizes])
    assert order.row_of.tolist() == [0, 0, 1, 3, 3, 2]
    assert order.rows(torch.tensor([[1, 4], [2, 5]])).tolist() == [[0, 3], [1, 2]]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_order_is_a_falling_staircase_and_the_vocabulary_finds_every_row(draw: st.DataObject) -> None:
    offsets, sizes, first = shop.drawn_sizes(draw, most_ids=12, dim=4)
    counts, total = np.diff(offsets).tolist(), int(offsets[-1])
    texts: list[str | None] = []
    for count in counts:
        pool = st.one_of(st.integers(-50, 50).map(str), st.sampled_from(["007", "07", "x", "y", "é", ""]))
        keys = draw.draw(st.lists(pool, min_size=count - 1, max_size=count - 1, unique=True))
        texts += [None, *keys]
    forms = [Sizes(sizes, 4), Sizes(first, 1)]
    order = order_rows(offsets, forms, texts)

    kept = (sizes > 0) | (first > 0)
    assert sorted(order.ids.tolist()) == torch.nonzero(kept).squeeze(1).tolist()
    assert all(a >= b for a, b in pairwise(order.classes))
    assert order.has_first_order[order.first_order_rows :].sum() == 0
    lookup = RowLookup(order.field_keys)
    for f, (begin, end) in enumerate(pairwise(offsets)):
        assert lookup.row(f, None) == order.row_of[begin]
        for i in range(begin, end):
            assert lookup.row(f, texts[i]) == order.row_of[i]
    # a pruned id has the row of the id that the eager model reads in its place
    info = TableInfo(torch.from_numpy(offsets), torch.zeros(total, dtype=torch.int64))
    mapped = pruned_id_map(info, forms).numpy()  # type: ignore[arg-type]
    assert np.array_equal(order.row_of, np.where(kept.numpy()[mapped], order.row_of[mapped], order.num_rows))


@pytest.mark.parametrize("layout", ["staircase", "csr"])
def test_raw_values_of_the_shop_become_the_rows_of_their_ids(data: Dataset, layout: str) -> None:
    order = order_rows(data.vocabulary.field_offsets, shop.forms(data, layout), data.vocabulary.key_texts())
    lookup = RowLookup(order.field_keys)
    for f, field in enumerate(data.schema.fields):
        for i in range(data.vocabulary.field_offsets[f], data.vocabulary.field_offsets[f + 1]):
            key = field.key(data.vocabulary.raw_of(i))
            assert lookup.row(f, None if key is None else str(key)) == order.row_of[i]


def test_positions_are_ordered_by_how_many_a_row_keeps() -> None:
    kept = torch.tensor([[1, 0, 0], [1, 0, 1], [0, 0, 0], [1, 1, 1]]).bool()
    assert order_rows([0, 4], [Mask(kept)]).ids.tolist() == [3, 1, 0]
