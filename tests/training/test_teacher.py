"""Soft targets on real rows and on made-up pairs."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ondevice.config.sections import ResearchConfig, TeachConfig
from ondevice.errors import UserError
from ondevice.training.metrics import log_loss
from ondevice.training.pairs import CANDIDATES
from ondevice.training.processes import Processes
from ondevice.training.teacher import Ensemble, Teacher, fitted_temperature, make_teacher

from ..world import World


def teacher(world: World, **options: object) -> Teacher:
    settings = {"item_columns": (2,), "label_weight": 0.3, "pairs": 0.5, **options}
    models = [world.recommender(seed=seed) for seed in (1, 2)]
    return Teacher(Ensemble(models), world.batches(), **settings)


def mean_prediction(world: World, ids: Tensor) -> Tensor:
    models = [world.recommender(seed=seed).eval() for seed in (1, 2)]
    return (torch.sigmoid(models[0](ids)) + torch.sigmoid(models[1](ids))).detach() / 2


def test_targets_are_labels_and_mean_predictions_mixed(world: World) -> None:
    rows, ids, labels = next(world.batches().epoch(0))
    extended, targets = teacher(world).extend(rows, ids, labels, torch.Generator().manual_seed(0))
    assert extended.shape == (128 + 64, 3)
    assert torch.equal(extended[:128], ids)
    real = 0.3 * labels + 0.7 * mean_prediction(world, ids)
    torch.testing.assert_close(targets[:128], real)
    torch.testing.assert_close(targets[128:], mean_prediction(world, extended[128:]))
    user, item = extended[128:, 0], extended[128:, 2]
    ages = {int(u): int(a) for u, a in world.train.ids[:, :2]}
    assert [ages[int(u)] for u in user] == extended[128:, 1].tolist()
    pairs = {(int(u), int(i)) for u, _, i in world.train.ids}
    assert any((int(u), int(i)) not in pairs for u, i in zip(user, item, strict=True))


def test_without_pairs_a_batch_keeps_its_rows(world: World) -> None:
    rows, ids, labels = next(world.batches().epoch(0))
    extended, targets = teacher(world, pairs=0.0, label_weight=1.0).extend(
        rows, ids, labels, torch.Generator()
    )
    assert torch.equal(extended, ids)
    assert torch.equal(targets, labels)


def test_processes_share_one_batch(world: World) -> None:
    """Put in order, the shares of four processes are the batch of one."""
    made = teacher(world)
    rows, ids, labels = next(world.batches().epoch(0))
    rows, ids, labels = rows[:90], ids[:90], labels[:90]
    expected = made.extend(rows, ids, labels, torch.Generator().manual_seed(0))
    for rank in range(4):
        made.ensemble.processes = Processes(rank, 4)
        extended, targets = made.extend(rows, ids, labels, torch.Generator().manual_seed(0))
        assert torch.equal(extended, expected[0])
        torch.testing.assert_close(targets, expected[1][rank::4])


@pytest.mark.parametrize("item_columns", [(), (0, 1, 2)])
def test_pairs_need_both_sides(world: World, item_columns: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"pairs.*only one side; set pairs=0"):
        teacher(world, item_columns=item_columns)
    assert teacher(world, item_columns=item_columns, pairs=0.0).pairs == 0.0


def test_teachers_are_frozen_and_in_evaluation(world: World) -> None:
    for model in teacher(world).ensemble.models:
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())


class Fixed(nn.Module):
    """A recommender whose logits are given: field 0 is the number of the row."""

    def __init__(self, logits: Tensor, info: object) -> None:
        super().__init__()
        self.logits = logits
        self.info = info

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits[ids[:, 0]]


def ensemble(world: World, each: list[list[float]], mean: str, temperature: float = 1.0) -> Tensor:
    models = [Fixed(torch.tensor(logits), world.info) for logits in each]
    ids = torch.arange(len(each[0]))[:, None]
    return Ensemble(models, mean, temperature).predict(ids)  # type: ignore[arg-type]


def test_probabilities_or_logits_are_averaged(world: World) -> None:
    """Logits ln 9 and 0: probabilities 0.9 and 0.5. √9 to 1 is a logit of ln 3; 0.7 to 0.3 one of ln 7/3."""
    each = [[math.log(9)], [0.0]]
    assert ensemble(world, each, "probability").item() == pytest.approx(0.7)
    assert ensemble(world, each, "logit").item() == pytest.approx(0.75)
    assert ensemble(world, each, "logit", 0.5).item() == pytest.approx(0.9)  # 9 to 1
    assert ensemble(world, each, "probability", 0.5).item() == pytest.approx(49 / 58)


def test_certain_predictions_stay_apart(world: World) -> None:
    """(exp(−30) + exp(−31)) / 2 = exp(−30.380), so the logits are ±30.380 and 25."""
    sure = ensemble(world, [[30.0, -30.0, 25.0], [31.0, -31.0, 25.0]], "probability", 10.0)
    expected = [1 / (1 + math.exp(-z / 10)) for z in (30.380, -30.380, 25)]
    assert sure.tolist() == pytest.approx(expected, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 5), st.integers(0, 1000))
def test_the_temperature_of_overconfident_logits_is_found(temperature: float, seed: int) -> None:
    """Labels drawn from σ(z) and logits T·z: no other temperature gives a lower log loss."""
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(4000, generator=generator)
    labels = (torch.rand(4000, generator=generator) < torch.sigmoid(z)).float()
    result = fitted_temperature(z * temperature, labels)
    assert result == pytest.approx(temperature, rel=0.15)

    def loss(t: float) -> float:
        return log_loss(labels.double(), torch.sigmoid(z.double() * temperature / t))

    assert loss(result) <= min(loss(result * 1.01), loss(result / 1.01))


def test_a_temperature_is_fitted_on_validation(world: World) -> None:
    models = [world.recommender(seed=1)]
    with torch.no_grad():
        models[0].first_order.weight.mul_(40)  # far too sure of itself
    said: list[str] = []
    made = make_teacher(
        TeachConfig(),
        models,
        world.info,
        world.batches(),
        world.batches("valid"),
        (2,),
        research=ResearchConfig(teacher_temperature="fitted"),
        say=said.append,
    )
    ids, labels = next(world.batches("valid").in_order())
    plain = torch.sigmoid(models[0](ids)).detach()
    assert made.ensemble.temperature > 2
    assert said == [f"teachers: temperature {made.ensemble.temperature:.3f}, fitted on the validation split"]
    assert log_loss(labels, made.ensemble.predict(ids)) < log_loss(labels, plain) - 0.02


def test_uncertain_pairs_are_those_the_teacher_is_unsure_of(world: World) -> None:
    """Mean p·(1 − p) over made-up pairs, against pairs by rows; targets are still the teacher's."""
    rows, ids, labels = next(world.batches().epoch(0))
    means = {}
    for sampling in ("rows", "uncertainty"):
        made = teacher(world, sampling=sampling, pairs=4.0)
        for model in made.ensemble.models:
            model.first_order.weight.mul_(20)
        whole, targets = made.extend(rows, ids, labels, torch.Generator().manual_seed(0))
        assert len(whole) == 5 * 128
        made_up = made.ensemble.predict(whole[128:])
        torch.testing.assert_close(targets[128:], made_up)
        means[sampling] = (made_up * (1 - made_up)).mean()
    assert CANDIDATES > 1
    assert means["uncertainty"] > 1.1 * means["rows"]


def test_pointless_pairs_are_warned_of(world: World) -> None:
    models, options = [world.recommender()], (world.info, world.batches(), world.batches("valid"), (2,))
    with pytest.warns(UserWarning, match=r"the item side is the same in every training row.*set pairs=0"):
        make_teacher(TeachConfig(), models, *options, research=ResearchConfig(), skip=(2,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_teacher(TeachConfig(), models, *options, research=ResearchConfig())
        make_teacher(TeachConfig(pairs=0.0), models, *options, research=ResearchConfig(), skip=(2,))
