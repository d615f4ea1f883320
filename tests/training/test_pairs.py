"""Made-up pairs: how contexts and items are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ondevice.forms.table import TableInfo
from ondevice.training import batches as batches_module
from ondevice.training.batches import Batches
from ondevice.training.pairs import CANDIDATES, SAMPLINGS, MadeUpPairs, choose, constant_side, distinct_items

from ..world import CPU, Split, World

SEVEN = Split(np.array([[10 + i, 20 + i, 30 + i] for i in range(7)], dtype=np.int32), np.arange(7) % 2)
# items (5, 8), (6, 8) and (6, 9), in 8, 1 and 1 of ten rows; contexts 0 to 9
SKEWED = Split(
    np.array([[row, 5, 8] for row in range(8)] + [[8, 6, 8], [9, 6, 9]], dtype=np.int32), np.arange(10) % 2
)


def drawn(
    split: Split, seed: int = 0, count: int = 200, columns: tuple[int, ...] = (2,), **how: object
) -> Tensor:
    pairs = MadeUpPairs(Batches(split, 2, CPU), columns, **how)  # type: ignore[arg-type]
    return pairs.draw(count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_pairs_join_the_sides_of_two_rows(sampling: str) -> None:
    """Context columns come from one real row, item columns from another."""
    ids = drawn(SEVEN, sampling=sampling)
    assert ids.shape == (200 * (CANDIDATES if sampling == "uncertainty" else 1), 3)
    context, item = ids[:, 0] - 10, ids[:, 2] - 30
    assert torch.equal(ids[:, 1], context + 20)
    assert set(context.tolist()) == set(item.tolist()) == set(range(7))
    assert (context != item).float().mean() > 0.7
    assert torch.equal(drawn(SEVEN, sampling=sampling), ids)
    assert not torch.equal(drawn(SEVEN, 1, sampling=sampling), ids)


def test_drawing_pairs_changes_no_row(world: World) -> None:
    batches = world.batches()
    MadeUpPairs(batches, (2,), "popularity").draw(500, torch.Generator().manual_seed(0))
    assert torch.cat([ids for ids, _ in batches.in_order()]).tolist() == world.train.ids.tolist()


@pytest.mark.parametrize("resident", [True, False])
def test_distinct_items_are_whole_item_sides(resident: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not resident:
        monkeypatch.setattr(batches_module, "RESIDENT_BYTES", 0)
    first, counts = distinct_items(Batches(SKEWED, 3, CPU), (1, 2))
    assert (first.tolist(), counts.tolist()) == ([0, 8, 9], [8, 1, 1])


@pytest.mark.parametrize(
    ("how", "shares"),
    [
        ({"sampling": "rows"}, (0.8, 0.1, 0.1)),
        ({"sampling": "uniform"}, (1 / 3, 1 / 3, 1 / 3)),
        ({"sampling": "popularity", "power": 1.0}, (0.8, 0.1, 0.1)),
        ({"sampling": "popularity", "power": 1 / 3}, (0.5, 0.25, 0.25)),  # 8^(1/3) = 2 against 1 and 1
        ({"sampling": "popularity", "power": 0.0}, (1 / 3, 1 / 3, 1 / 3)),
    ],
)
def test_items_come_as_often_as_their_sampling_says(
    how: dict[str, object], shares: tuple[float, ...]
) -> None:
    ids = drawn(SKEWED, count=20_000, columns=(1, 2), **how)
    got = [((ids[:, 1] == a) & (ids[:, 2] == b)).double().mean() for a, b in ((5, 8), (6, 8), (6, 9))]
    assert got == pytest.approx(shares, abs=0.012)  # four standard deviations of a share of 20,000 draws
    assert torch.bincount(ids[:, 0]).double() / 20_000 == pytest.approx([0.1] * 10, abs=0.01)


def test_candidates_of_a_context_follow_one_another() -> None:
    ids = drawn(SEVEN, sampling="uncertainty").view(200, CANDIDATES, 3)
    assert bool((ids[:, :, :2] == ids[:, :1, :2]).all())
    assert (ids[:, 0, 2] != ids[:, 1, 2]).double().mean() > 0.7


def test_the_teacher_chooses_what_it_is_unsure_of() -> None:
    """p·(1 − p) of 0.5, 0.9, 0.1 and 1: 25, 9, 9 and 0 of 43."""
    chosen = choose(torch.tensor([[0.5, 0.9, 0.1, 1.0]]).expand(20_000, 4), torch.Generator().manual_seed(0))
    shares = torch.bincount(chosen, minlength=4).double() / 20_000
    assert shares == pytest.approx([25 / 43, 9 / 43, 9 / 43, 0], abs=0.014)


def test_a_choice_among_the_certain_is_still_one_of_them() -> None:
    chosen = choose(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.Generator().manual_seed(0))
    assert bool(((chosen == 0) | (chosen == 1)).all())


def info(*counts: list[int]) -> TableInfo:
    offsets = np.cumsum([0, *(len(each) for each in counts)])
    return TableInfo(torch.tensor(offsets), torch.tensor([c for each in counts for c in each]))


def test_a_side_with_one_value_is_found() -> None:
    several, one = [0, 3, 4], [0, 7, 0]
    assert constant_side(info(several, one, several), (2,)) is None
    assert constant_side(info(several, one, one), (2,)) == "item"
    assert constant_side(info(one, one, several), (2,)) == "context"
    assert constant_side(info(several, several), (1,), skip=(0,)) == "context"
    assert constant_side(info(several, several), (1,), skip=(1,)) == "item"
