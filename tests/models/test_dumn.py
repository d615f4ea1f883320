"""The parts of DUMN: what is purified, what a memory takes in, and that padding changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ondevice.data.slots import Slots
from ondevice.models.base import History
from ondevice.models.dumn import DUMN, Memory, purified

SLOTS = Slots((3, 3, 1), ("mean", "mean", None), (2, 2, 2))
"""What was liked, what was not, and an item."""


def history(lengths: tuple[int, ...], dim: int = 4, width: int = 3) -> History:
    present = torch.stack([torch.arange(width) >= width - length for length in lengths]).float()
    return History(torch.randn(len(lengths), width, dim) * present.unsqueeze(2), present)


def test_what_is_purified_is_orthogonal_to_what_it_is_purified_of() -> None:
    x, y = torch.randn(50, 7, 16), torch.randn(50, 1, 16)
    pure = purified(x, y)
    unit = y / y.norm(dim=2, keepdim=True)
    assert float((pure / pure.norm(dim=2, keepdim=True) * unit).sum(2).abs().max()) < 1e-6
    assert torch.equal(purified(x, torch.zeros_like(y)), x)


def test_purified_by_hand() -> None:
    """(3, 4) without its part along (2, 0) is (0, 4)."""
    pure = purified(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[2.0, 0.0]]]))
    torch.testing.assert_close(pure, torch.tensor([[[0.0, 4.0]]]))


@pytest.mark.parametrize(("bias", "is_left"), [(-1e4, True), (1e4, False)])
def test_a_closed_gate_leaves_the_memory(bias: float, is_left: bool) -> None:
    memory, before = Memory(4, 5), torch.randn(2, 5, 4)
    with torch.no_grad():
        memory.gate.weight.zero_()
        memory.gate.bias.fill_(bias)
    some = history((3, 2))
    after = memory.write(before, some)
    expected = before if is_left else memory.content(before, some.values, some.present)
    torch.testing.assert_close(after, expected)


def test_an_empty_history_leaves_the_memory() -> None:
    memory, before = Memory(4, 5), torch.randn(1, 5, 4)
    assert torch.equal(memory.write(before, history((0,))), before)


def scored(model: DUMN, items: Tensor, liked: History, disliked: History) -> Tensor:
    return model(items, [liked, disliked])


def test_padding_changes_nothing() -> None:
    model, items = DUMN(3, 4, SLOTS, width=6, memory_slots=5).eval(), torch.randn(4, 1, 4)
    liked, disliked = history((3, 2, 1, 0)), history((0, 1, 2, 3))
    expected = scored(model, items, liked, disliked)

    def padded(each: History) -> History:
        values = torch.cat([torch.zeros(4, 5, 4), each.values], 1)
        return History(values, torch.cat([torch.zeros(4, 5), each.present], 1))

    torch.testing.assert_close(scored(model, items, padded(liked), padded(disliked)), expected)
    assert bool(torch.isfinite(expected).all())


def test_likes_and_dislikes_are_told_apart() -> None:
    model, items = DUMN(3, 4, SLOTS).eval(), torch.randn(4, 1, 4)
    one, other = history((3, 3, 3, 3)), history((3, 3, 3, 3))
    assert not torch.allclose(scored(model, items, one, other), scored(model, items, other, one))
