"""Tables whose cells become codes: nearest entries, straight-through gradients, and what may never change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ondevice.forms.coded_staircase import CodedStaircase
from ondevice.forms.codes import COMMITMENT, REFRESH_EVERY, CodedEmbedding, Codes
from ondevice.forms.table import TableInfo


def table(values: Tensor, sizes: list[int], code_dims: int = 2) -> CodedEmbedding:
    info = TableInfo(torch.tensor([0, len(sizes)]), torch.ones(len(sizes), dtype=torch.int64))
    form = Codes(torch.tensor(sizes), values.shape[1], code_dims)
    return CodedEmbedding(info, form, initial=values)


VALUES = torch.tensor(
    [[1.0, 0.0, 5.0, 5.0], [1.2, 0.0, 9.0, 9.0], [-3.0, 2.0, 0.5, 0.5], [7.0, 7.0, 7.0, 7.0]]
)


def test_values_are_free_until_codes_begin_and_then_entries_of_the_codebook() -> None:
    coded = table(VALUES, [4, 2, 4, 0])
    ids = torch.arange(4)[None]
    kept = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    assert torch.equal(coded(ids)[0], VALUES * kept)
    assert not coded.is_final
    coded.begin_codes()
    assert coded.is_final
    coded.eval()
    # five stored cells fit into 255 entries without loss, and what is not stored is entry 0, zero
    torch.testing.assert_close(coded(ids)[0], VALUES * kept)
    torch.testing.assert_close(coded.table(), VALUES * kept)
    assert not coded.codebook[0].any()
    assert coded.codes[3].tolist() == [0, 0]
    assert int(coded.codes[1, 1]) == 0


def test_gradients_pass_straight_to_the_values_and_to_the_entries_looked_up() -> None:
    coded = table(VALUES, [4, 2, 4, 0])
    coded.begin_codes()
    with torch.no_grad():
        coded.weight += 0.25 * coded.keep  # now x and its entry differ
    weights = torch.randn(1, 5, 4)
    ids = torch.tensor([[0, 1, 1, 2, 3]])
    (coded(ids) * weights).sum().backward()
    expected = torch.zeros(4, 4).index_add(0, ids[0], weights[0]) * coded.keep
    torch.testing.assert_close(coded.weight.grad, expected)
    by_entry = torch.zeros_like(coded.codebook).index_add(
        0, coded.codes[ids[0]].long().flatten(), weights[0].unflatten(1, (2, 2)).flatten(0, 1)
    )
    by_entry[0] = 0  # the cell of zeros is never trained
    torch.testing.assert_close(coded.codebook.grad, by_entry)


def test_the_commitment_is_the_squared_distance_of_the_rows_looked_up() -> None:
    coded = table(VALUES, [4, 2, 4, 0])
    assert coded.regularization() is None
    coded(torch.tensor([[0]]))
    assert coded.regularization() is None  # values are free still
    coded.begin_codes()
    with torch.no_grad():
        coded.weight += 0.5 * coded.keep
    coded(torch.tensor([[0, 0], [1, 3]]))  # rows 0, 1 and 3, of six stored values
    penalty = coded.regularization()
    assert penalty is not None
    assert penalty.item() == pytest.approx(COMMITMENT * 6 * 0.25 / 2)
    assert coded.regularization() is None


def test_codes_follow_the_values_now_and_then_and_whenever_evaluation_begins() -> None:
    coded = table(VALUES, [4, 2, 4, 0])
    coded.begin_codes()
    before = coded.codes.clone()
    with torch.no_grad():
        coded.weight[0, :2] = torch.tensor([-3.0, 2.0])  # the first cell of row 2
    coded.step_end(REFRESH_EVERY + 1)
    assert torch.equal(coded.codes, before)
    coded.step_end(2 * REFRESH_EVERY)
    assert coded.codes[0, 0] == coded.codes[2, 0]
    with torch.no_grad():
        coded.weight[0, :2] = torch.tensor([1.0, 0.0])
    coded.eval()
    assert torch.equal(coded.codes, before)


def test_gradients_reach_the_entries_looked_up_and_no_others() -> None:
    coded = table(VALUES, [4, 2, 4, 0])
    coded.straight_through = False
    coded.begin_codes()
    weights = torch.randn(1, 5, 4)
    ids = torch.tensor([[0, 1, 1, 2, 3]])
    (coded(ids) * weights).sum().backward()
    by_entry = torch.zeros_like(coded.codebook).index_add(
        0, coded.codes[ids[0]].long().flatten(), weights[0].unflatten(1, (2, 2)).flatten(0, 1)
    )
    by_entry[0] = 0  # the cell of zeros is never trained
    torch.testing.assert_close(coded.codebook.grad, by_entry)
    assert coded.weight.grad is None
    assert coded.regularization() is None


def test_turned_values_need_less_of_a_codebook() -> None:
    """A thousand rows along two axes out of four: dealt to both cells, they need less than in one."""
    torch.manual_seed(0)
    values = torch.randn(1000, 4) * torch.tensor([1.0, 1.0, 0.01, 0.01])
    lost = []
    for turned in (False, True):
        coded = table(values, [4] * 1000)
        rotation = coded.spread() if turned else torch.eye(4)
        coded.rotate(rotation)
        coded.begin_codes(torch.eye(4).expand(1000, 4, 4))
        lost.append(float((coded.table() - values @ rotation).square().mean()))
    assert lost[1] < 0.1 * lost[0]


def test_what_a_rotation_takes_from_small_rows_is_known_beforehand() -> None:
    coded = table(torch.tensor([[3.0, 0, 4, 0], [1.0, 2, 0, 0]]), [4, 2])
    swap = torch.eye(4)[[2, 1, 0, 3]]  # the first dimension for the third
    assert coded.lost_by(swap) == pytest.approx(1 / 30)
    assert coded.lost_by(torch.eye(4)) == 0
    coded.rotate(swap)
    assert coded.weight.tolist() == [[4, 0, 3, 0], [0, 2, 0, 0]]


def test_chosen_codes_come_nearest_to_what_is_wanted_as_the_curvature_sees_it() -> None:
    coded = table(torch.zeros(4, 4), [4, 2, 4, 0])
    codebook = torch.zeros(256, 2)
    codebook[1:4] = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    codebook[4:] = 100
    coded.set_codes(torch.zeros(4, 2, dtype=torch.uint8), codebook)
    wanted = torch.tensor([[1.0, 6.0, 5.0, 6.0], [2.9, 4.1, 9.0, 9.0]])
    blind = torch.diag(torch.tensor([0.0, 1.0, 1.0, 1.0])).expand(
        2, 4, 4
    )  # the first dimension counts nothing
    coded.choose(torch.tensor([0, 1]), wanted, blind)
    assert coded.codes[:2].tolist() == [[3, 3], [2, 0]]
    assert coded.table()[1].tolist() == [3.0, 4.0, 0.0, 0.0]


def test_finished_codes_are_read_as_they_are() -> None:
    coded = table(torch.zeros(4, 4), [4, 2, 4, 0])
    codes = torch.tensor([[3, 1], [2, 0], [1, 1], [0, 0]], dtype=torch.uint8)
    codebook = torch.zeros(256, 2)
    codebook[1:4] = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    coded.set_codes(codes, codebook)
    expected = torch.tensor([[5.0, 6, 1, 2], [3, 4, 0, 0], [1, 2, 1, 2], [0, 0, 0, 0]])
    assert torch.equal(coded.table(), expected)
    coded.eval()
    assert torch.equal(coded.codes, codes)
    assert torch.equal(coded(torch.arange(4)[None])[0], expected)
    other = table(torch.zeros(4, 4), [4, 2, 4, 0])
    other.load_state_dict(coded.state_dict())
    assert torch.equal(other.table(), expected)


def test_sizes_that_are_no_whole_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of code_dims 2"):
        Codes(torch.tensor([3]), 4, 2)


def refined(values: Tensor, sizes: list[int]) -> CodedEmbedding:
    info = TableInfo(torch.tensor([0, len(sizes)]), torch.ones(len(sizes), dtype=torch.int64))
    return CodedEmbedding(info, Codes(torch.tensor(sizes), values.shape[1], 2), initial=values)


def test_refined_rows_are_entries_and_quarters_of_entries() -> None:
    coded = refined(torch.zeros(4, 4), [8, 6, 4, 0])
    assert coded.codes.shape == (4, 4)
    codebook = torch.zeros(256, 2)
    codebook[1:4] = torch.tensor([[1.0, 2.0], [3.0, 4.0], [8.0, -4.0]])
    codes = torch.tensor([[1, 2, 3, 1], [2, 1, 3, 0], [3, 3, 0, 0], [0, 0, 0, 0]], dtype=torch.uint8)
    coded.set_codes(codes, codebook)
    expected = torch.tensor([[3.0, 1, 3.25, 4.5], [5, 3, 1, 2], [8, -4, 8, -4], [0, 0, 0, 0]])
    ids = torch.arange(4)[None]
    for training in (True, False):
        coded.straight_through = False
        torch.testing.assert_close(coded.train(training)(ids)[0], expected)
    torch.testing.assert_close(coded.table(), expected)
    assert coded.num_kept() == 18
    form = coded.form
    assert (form.row_sizes().tolist(), form.dim, form.num_levels) == ([8, 6, 4, 0], 4, 2)
    coded.train()(ids).sum().backward()
    assert coded.codebook.grad is not None
    assert coded.codebook.grad[:4, 0].tolist() == [0.0, 2.25, 2.0, 2.5]


def test_finished_codes_of_two_levels_are_read_as_they_are() -> None:
    """What they decode to has nearer codes, level by level: those are others, and finished ones are not chosen anew."""
    coded = refined(torch.zeros(500, 4), [8] * 500)
    codes = torch.randint(1, 256, (500, 4)).to(torch.uint8)
    coded.set_codes(codes, torch.randn(256, 2))
    coded.train().eval()
    assert torch.equal(coded.codes, codes)


@pytest.mark.parametrize("curved", [False, True])
def test_refined_rows_come_nearer_to_their_values_than_others(curved: bool) -> None:
    torch.manual_seed(0)
    values = torch.randn(2000, 4)
    coded = refined(values, [8] * 1000 + [4] * 1000)
    coded.begin_codes(torch.eye(4).expand(2000, 4, 4) if curved else None)
    wrong = (coded.table() - values).square().mean(1)
    assert wrong[:1000].mean() < 0.15 * wrong[1000:].mean()
    coded.straight_through = True
    coded.refresh_codes()
    again = (coded.table() - values).square().mean(1)
    assert again[:1000].mean() < 0.2 * again[1000:].mean()


@pytest.mark.parametrize("dim", [4, 32])
def test_levels_are_added_by_a_product_or_one_by_one(dim: int) -> None:
    """Both give what the codes decode to; of many dimensions the product would be most of a program."""
    rows, width = 20, 4
    info = TableInfo(torch.tensor([0, rows]), torch.ones(rows, dtype=torch.int64))
    form = Codes(torch.arange(rows, 0, -1).clamp(max=2 * dim // width) * width, dim, width)
    table = form.table(info)
    assert isinstance(table, CodedEmbedding)
    drawn = torch.randint(1, 256, table.codes.shape) * table.cells
    table.set_codes(drawn.to(torch.uint8), torch.cat([torch.zeros(1, width), torch.randn(255, width)]))
    order = torch.arange(rows)
    packed = form.pack(table, order)
    assert isinstance(packed, CodedStaircase)
    assert (packed.sums is None) == (dim == 32)
    torch.testing.assert_close(packed(order[None])[0], table.decoded()[order].detach())
