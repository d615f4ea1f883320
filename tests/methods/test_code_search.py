"""Codes chosen by what they do to the loss: slopes and curvatures, one step after the other, and their limits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.functional import jacobian

from ondevice.config.sections import TrainConfig
from ondevice.config.stores import Codes
from ondevice.forms.codes import CodedEmbedding
from ondevice.methods import code_search as module
from ondevice.methods.code_search import CodeSearch, CodeStages, Samples
from ondevice.models import MODELS
from ondevice.recommender import Recommender
from ondevice.training.teacher import Ensemble, Teacher

from ..world import World


def samples(world: World, pairs: float | None = None, seed: int = 0) -> Samples:
    train = world.batches()
    teacher = None
    if pairs is not None:
        teacher = Teacher(Ensemble([world.recommender(seed=9)]), train, (2,), 0.3, pairs)
    return Samples(train, teacher, seed)


def coded(world: World, seed: int = 0, begun: bool = True) -> tuple[Recommender, CodedEmbedding]:
    recommender = world.coded(seed).eval()
    table = recommender.embedding
    assert isinstance(table, CodedEmbedding)
    table.straight_through = False
    with torch.no_grad():
        table.weight.mul_(0).add_(torch.randn(table.weight.shape) * 0.4 * table.keep)
    if begun:
        torch.manual_seed(seed)
        table.begin_codes()
    return recommender, table


def loss(recommender: Recommender, given: Samples) -> float:
    with torch.no_grad():
        return float(F.binary_cross_entropy_with_logits(recommender(given.ids.long()), given.targets))


def test_samples_are_training_rows_with_labels_and_pairs_with_predictions(world: World) -> None:
    alone = samples(world)
    labelled = {
        (*map(int, ids), float(y)) for ids, y in zip(world.train.ids, world.train.labels, strict=True)
    }
    assert {(*ids, y) for ids, y in zip(alone.ids.tolist(), alone.targets.tolist(), strict=True)} == labelled
    taught = samples(world, pairs=0.5)
    assert len(taught) == len(alone) + round(0.5 * len(alone))
    teacher = world.recommender(seed=9).eval()
    with torch.no_grad():
        predicted = torch.sigmoid(teacher(taught.ids.long()))
    pure = (taught.targets - predicted).abs() < 1e-6
    mixed = torch.minimum(*((taught.targets - 0.7 * predicted - 0.3 * label).abs() for label in (0.0, 1.0)))
    assert bool((pure | (mixed < 1e-6)).all())
    assert int(pure.sum()) >= round(0.5 * len(alone))
    assert torch.equal(samples(world, pairs=0.5).ids, taught.ids)
    assert not torch.equal(samples(world, pairs=0.5, seed=1).ids, taught.ids)


def test_samples_are_no_more_than_memory_allows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_BYTES", 16 * 150)  # three ids and a target each
    assert len(samples(world, pairs=0.5)) == 150


def test_slope_and_curvature_are_those_of_the_loss(world: World) -> None:
    """A factorization machine is linear in a field's rows: Gauss-Newton leaves nothing out."""
    recommender, table = coded(world)
    recommender.model = MODELS["fm"](3, 4)
    given = samples(world, pairs=0.5)
    rows, _ = table.stored()
    low, high = (int(x) for x in table.info.field_offsets[:2])
    field_rows = rows[(rows >= low) & (rows < high)]
    search = CodeSearch(recommender, given)
    curvature, slope = search._measure(field_rows, 0)
    whole = table.table()

    def loss_of(row: Tensor) -> Tensor:
        values = torch.where((torch.arange(len(whole)) == field_rows[3])[:, None], row, whole)
        ids = given.ids.long()
        logits = recommender.logits_of(values[recommender.mapped(ids)], ids)
        return F.binary_cross_entropy_with_logits(logits, given.targets)

    at = whole[field_rows[3]].clone()
    torch.testing.assert_close(slope[3], jacobian(loss_of, at), atol=1e-6, rtol=1e-4)
    aside = 0.05 * torch.eye(4)
    expected = torch.stack([(jacobian(loss_of, at + d) - jacobian(loss_of, at - d)) / 0.1 for d in aside])
    torch.testing.assert_close(curvature[3], expected, atol=1e-5, rtol=1e-2)


def test_a_sweep_lowers_the_loss_and_keeps_what_is_stored(world: World) -> None:
    recommender, table = coded(world)
    given = samples(world, pairs=0.5)
    before, stored = loss(recommender, given), table.codes > 0
    search = CodeSearch(recommender, given)
    search.sweep()
    once = loss(recommender, given)
    assert once < before - 0.01
    search.sweep()
    assert loss(recommender, given) < once
    assert torch.equal(table.codes > 0, stored)
    assert not table.codebook[0].any()


@pytest.mark.parametrize("model", MODELS)
def test_codes_lose_little_where_there_are_enough(world: World, model: str) -> None:
    recommender, table = coded(world, begun=False)
    torch.manual_seed(1)
    recommender.model = MODELS[model](3, 4).eval()
    given = samples(world)
    before = loss(recommender, given)
    search = CodeSearch(recommender, given)
    search.begin()
    assert table.is_final
    assert search.loss() == pytest.approx(loss(recommender, given), abs=1e-5)
    assert search.loss() < before + 0.02


def test_matrices_above_the_limit_are_worked_on_in_parts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, table = coded(world)
    CodeSearch(whole, samples(world)).sweep()
    parts, other = coded(world)
    monkeypatch.setattr(module, "MATRIX_BYTES", 5 * 4 * table.embedding_dim**2)  # five rows at once
    CodeSearch(parts, samples(world)).sweep()
    # damping is that of the rows at once, so that a few cells may end otherwise
    assert float((table.codes == other.codes).float().mean()) > 0.6
    recommender, free = coded(world, begun=False)
    CodeSearch(recommender, samples(world)).begin()
    assert free.is_final


def phase(world: World, **options: object) -> CodeStages:
    """13 steps an epoch, ten epochs; codes from step 52 on."""
    codes = Codes(max_size=4, code_dims=2, **options)  # type: ignore[arg-type]
    settings = TrainConfig(epochs=10, learning_rate=0.2)
    return CodeStages(world.coded(), settings, codes, world.batches(), None, 0)


def test_with_codes_chosen_by_the_loss_rates_run_twice_and_axes_are_turned_half_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROTATION_LOSS", 1.0)
    searched = phase(world, code_choice="loss")
    assert [searched.rate(step) for step in (0, 51)] == [(0.2, 0, 52)] * 2
    assert searched.rate(52) == (pytest.approx(0.02), 52, 130)
    assert [step for step in range(60) if searched.is_due(step)] == [26, *range(52, 60)]
    assert searched.at(26)
    assert not searched.at(52)
    assert searched.table.is_final
    assert [step for step in range(53, 130) if searched.is_due(step)] == [65, 78, 91, 104, 117]
    assert phase(world, code_choice="loss", code_learning_rate=0.5).rate(60) == (0.5, 52, 130)


def test_axes_stay_where_small_rows_would_lose_by_turning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROTATION_LOSS", 0.0)
    searched = phase(world, code_choice="loss")
    before = searched.table.weight.detach().clone()
    assert not searched.at(26)
    assert torch.equal(searched.table.weight, before)


def test_codes_that_go_on_straight_through_begin_once(world: World) -> None:
    plain = phase(world)
    assert plain.rate(60) == (0.2, 0, 130)
    assert [step for step in range(54) if plain.is_due(step)] == [52, 53]
    assert not plain.at(52)
    assert plain.table.straight_through
    assert not [step for step in range(53, 130) if plain.is_due(step)]


def test_axes_of_a_table_with_levels_are_not_turned(world: World) -> None:
    """A smaller level is made of leading dimensions, which a rotation would mix."""
    codes = Codes(max_size=4, code_dims=2, code_choice="loss")
    settings, train = TrainConfig(epochs=10), world.batches()
    levels = CodeStages(world.coded(), settings, codes, train, None, 0, levels=lambda step: None)
    assert not levels.is_due(26)
    assert levels.is_due(52)
