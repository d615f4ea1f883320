"""A training that is cut off anywhere and resumed ends with the weights of one that was not."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ondevice.config.sections import SizesConfig, TrainConfig
from ondevice.config.stores import Codes, Int8, Store
from ondevice.errors import UserError
from ondevice.methods.code_search import code_stages
from ondevice.methods.search import Search
from ondevice.training.batches import Batches
from ondevice.training.fit import Fit, FitResult
from ondevice.training.teacher import Ensemble, Teacher

from ..world import CPU, World

EVERYTHING = TrainConfig(
    epochs=4,
    patience=4,
    batch_size=128,
    learning_rate=0.01,
    schedule="cosine",
    weight_decay=1e-5,
    embedding_penalty=1e-3,
    ema_decay=0.9,
    ema_every=3,
)


class CutOffError(Exception):
    """What ends a training early here."""


class CutBatches(Batches):
    """Batches that break off after ``left`` of them."""

    left = -1

    def epoch(self, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for batch in super().epoch(seed):
            if self.left == 0:
                raise CutOffError
            self.left -= 1
            yield batch


def cut(world: World, after: int) -> CutBatches:
    batches = CutBatches(world.train, 128, CPU)  # 13 batches an epoch
    batches.left = after
    return batches


def make_fit(
    world: World,
    checkpoint: Path | None,
    seed: int = 0,
    after: int = -1,
    codes: str = "",
    row_wise: bool = False,
) -> Fit:
    """A fresh recommender of other weights for each ``seed``: a resume must bring back all of it.

    With ``codes`` its values become codes in the middle of the second epoch.
    """
    train = cut(world, after)
    settings = dataclasses.replace(EVERYTHING, row_wise=row_wise)
    store: Store = Codes(max_size=4, code_dims=2, code_start=0.4, code_choice=codes) if codes else Int8()
    return Fit(
        world.coded(seed) if codes else world.recommender(seed=seed),
        train,
        world.batches("valid"),
        settings,
        checkpoint=checkpoint,
        teacher=Teacher(Ensemble([world.recommender(seed=9)]), train, (2,), 0.3, 0.5),
        make_stages=code_stages(store),
        embedding_dropout=0.1,
    )


def make_search(
    world: World, checkpoint: Path | None, regime: str, row_wise: bool, seed: int = 0, after: int = -1
) -> Search:
    return Search(
        world.recommender("pep", seed=seed, regime=regime, threshold_init=-5.0),
        cut(world, after),
        world.batches("valid"),
        SizesConfig(
            epochs=4,
            batch_size=128,
            learning_rate=0.01,
            threshold_learning_rate=0.1,
            weight_decay=1e-5,
            check_every=5,
            row_wise=row_wise,
        ),
        [300, 100] if regime == "budget" else [1],
        checkpoint=checkpoint,
    )


def finish(search: Search) -> None:
    """To the end; only a budget-driven search meets its budgets, of the others what they did is compared."""
    if search.targets == [1]:
        with pytest.raises(UserError, match="values are left after 4 epochs"):
            search.run()
    else:
        search.run()


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.fixture(scope="module")
def whole_fit(world: World) -> Callable[[str, bool], tuple[Fit, FitResult]]:
    """A fit that is not cut off, once for all places to cut."""

    @functools.cache
    def run(codes: str, row_wise: bool) -> tuple[Fit, FitResult]:
        fit = make_fit(world, None, codes=codes, row_wise=row_wise)
        return fit, fit.run()

    return run


@pytest.fixture(scope="module")
def whole_search(world: World) -> Callable[[str, bool], Search]:
    """A search that is not cut off, once for all places to cut."""

    @functools.cache
    def run(regime: str, row_wise: bool) -> Search:
        search = make_search(world, None, regime, row_wise)
        finish(search)
        return search

    return run


@pytest.mark.parametrize("row_wise", [False, True])
@pytest.mark.parametrize("codes", ["", "nearest", "loss"])
@pytest.mark.parametrize("after", [[5], [13], [32], [45, 3], [20, 8, 20]])
def test_a_fit_ends_alike(
    world: World,
    tmp_path: Path,
    whole_fit: Callable[[str, bool], tuple[Fit, FitResult]],
    after: list[int],
    codes: str,
    row_wise: bool,
) -> None:
    """Cut before the first checkpoint, just after one, in the middle of later epochs, and again and again."""
    kind = {"codes": codes, "row_wise": row_wise}
    whole, expected = whole_fit(codes, row_wise)
    for number, batches in enumerate(after):
        torch.manual_seed(1000 + number)
        with pytest.raises(CutOffError):
            make_fit(world, tmp_path / "fit.pt", seed=number and 50 + number, after=batches, **kind).run()
    torch.manual_seed(77)
    first_checkpoint = (tmp_path / "fit.pt").exists()
    resumed = make_fit(world, tmp_path / "fit.pt", seed=60 if first_checkpoint else 0, **kind)
    result = resumed.run()
    assert_same(whole.recommender.state_dict(), resumed.recommender.state_dict())
    assert (result.history, result.valid, result.epochs) == (expected.history, expected.valid, 4)
    assert [entry["final"] for entry in result.history] == (
        [False, True, True, True] if codes else [True] * 4
    )
    assert result.valid["auc"] == max(entry["valid_auc"] for entry in result.history if entry["final"])


@pytest.mark.parametrize("row_wise", [False, True])
@pytest.mark.parametrize("regime", ["budget", "data", "decay"])
@pytest.mark.parametrize("after", [[15], [40, 4]])
def test_a_search_ends_alike(
    world: World,
    tmp_path: Path,
    whole_search: Callable[[str, bool], Search],
    regime: str,
    after: list[int],
    row_wise: bool,
) -> None:
    whole = whole_search(regime, row_wise)
    for number, batches in enumerate(after):
        part = make_search(world, tmp_path / "search.pt", regime, row_wise, seed=number and 50, after=batches)
        with pytest.raises(CutOffError):
            part.run()
    torch.manual_seed(77)
    resumed = make_search(world, tmp_path / "search.pt", regime, row_wise, seed=60)
    finish(resumed)
    assert_same(whole.recommender.state_dict(), resumed.recommender.state_dict())
    assert resumed.history == whole.history
    for target, forms in whole.forms.items():
        for one, other in zip(forms, resumed.forms[target], strict=True):
            assert torch.equal(one.mask(), other.mask())


def test_a_finished_training_is_not_done_again(world: World, tmp_path: Path) -> None:
    first = make_fit(world, tmp_path / "fit.pt")
    expected = first.run()
    again = make_fit(world, tmp_path / "fit.pt", seed=5, after=0)
    result = again.run()
    assert_same(first.recommender.state_dict(), again.recommender.state_dict())
    assert result == expected
