"""One step: what the loss and the gradients are, and which optimizer moves what."""

from __future__ import annotations

import math

import pytest
import torch

from ondevice.config.sections import SizesConfig
from ondevice.training.step import make_optimizers, train_step

from ..world import World


def test_the_penalty_is_on_what_was_looked_up(world: World) -> None:
    """λ·Σ e² / B adds 2λe/B per lookup to the gradient; rows not looked up get none."""
    ids, targets = torch.tensor([[1, 42, 50], [1, 43, 51]]), torch.tensor([1.0, 0.0])
    gradients = []
    for penalty in (0.0, 0.3):
        recommender = world.recommender().eval()
        train_step(recommender, [], ids, targets, embedding_penalty=penalty)
        gradients.append(recommender.embedding.weight.grad)
    lookups = torch.bincount(ids.flatten(), minlength=world.info.num_embeddings)
    expected = 2 * 0.3 / 2 * lookups[:, None] * world.recommender().embedding.weight
    torch.testing.assert_close(gradients[1] - gradients[0], expected, rtol=1e-4, atol=1e-7)


def test_the_loss_that_is_shown_has_no_penalty_in_it(world: World) -> None:
    ids, targets = torch.tensor([[1, 42, 50]]), torch.tensor([0.25])
    recommender = world.recommender().eval()
    score = torch.sigmoid(recommender(ids)).item()
    expected = -(0.25 * math.log(score) + 0.75 * math.log(1 - score))
    loss = train_step(recommender, [], ids, targets, embedding_penalty=100.0)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_embedding_dropout_zeroes_looked_up_values(world: World) -> None:
    recommender = world.recommender().eval()
    ids = torch.tensor(world.train.ids[:100]).long()
    with torch.no_grad():
        recommender.embedding.weight.abs_().add_(1.0)
    seen = []
    recommender.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for dropout in (0.0, 0.25):
        train_step(recommender, [], ids, torch.full((100,), 0.5), embedding_dropout=dropout)
    assert (seen[0] != 0).all()
    assert (seen[1] == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)


def test_thresholds_have_an_optimizer_or_a_group_of_their_own(world: World) -> None:
    settings = SizesConfig(learning_rate=0.1, threshold_learning_rate=0.5, weight_decay=0.2)
    (plain,) = make_optimizers(world.recommender("uniform"), settings)
    assert [(g["lr"], g["weight_decay"]) for g in plain.param_groups] == [(0.1, 0.2)]
    (decay,) = make_optimizers(world.recommender("pep", regime="decay"), settings)
    assert [(g["lr"], g["weight_decay"]) for g in decay.param_groups] == [(0.1, 0.2), (0.5, 0.2)]
    (data,) = make_optimizers(world.recommender("pep", regime="data"), settings)
    assert [(g["lr"], g["weight_decay"]) for g in data.param_groups] == [(0.1, 0.2), (0.5, 0.0)]
    weights, thresholds = make_optimizers(world.recommender("pep", regime="budget"), settings)
    assert [(g["lr"], g["weight_decay"]) for g in weights.param_groups] == [(0.1, 0.2)]
    assert [g["lr"] for g in thresholds.param_groups] == [0.5]
    recommender = world.recommender("pep", regime="budget")
    both = sum(len(g["params"]) for o in make_optimizers(recommender, settings) for g in o.param_groups)
    assert both == len(list(recommender.parameters()))
