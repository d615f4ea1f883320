"""Histories that nobody had: cut, dropped and spliced, and never anything else."""

from __future__ import annotations

import torch

from ondevice.training.made_up import made_up


def drawn(seed: int = 0) -> set[tuple[int, ...]]:
    """What is made of [0, 1, 2, 3] and [7, 8, 9, 10], without the places before them."""
    windows, lengths = torch.tensor([[0, 1, 2, 3], [7, 8, 9, 10]]), torch.tensor([3, 4])
    made, of_made = made_up(windows, lengths, 3000, torch.Generator().manual_seed(seed))
    assert made.shape == (3000, 4)
    for row, length in zip(made.tolist(), of_made.tolist(), strict=True):
        assert all(row[4 - length :])
        assert not any(row[: 4 - length])
    return {tuple(item for item in row if item) for row in made.tolist()}


def test_each_is_a_cut_a_dropped_or_a_spliced_one() -> None:
    one, other = (1, 2, 3), (7, 8, 9, 10)
    cut = {one[k:] for k in range(3)} | {other[k:] for k in range(4)}
    spliced = {
        (*first[-(4 - count) :], *second[-count:]) if count < 4 else second[-4:]
        for first in (one, other)
        for second in (one, other)
        for count in range(1, len(second) + 1)
    }
    dropped = {
        (*(item for place, item in enumerate(items[:-1]) if bits >> place & 1), items[-1])
        for items in (one, other)
        for bits in range(1 << len(items) - 1)
    }
    made = drawn()
    assert made == cut | spliced | dropped


def test_it_depends_on_its_generator_alone() -> None:
    windows, lengths = torch.arange(1, 41).view(8, 5), torch.full((8,), 5)
    first, again, other = (
        made_up(windows, lengths, 50, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
