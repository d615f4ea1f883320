"""One training: it learns, stops by validation alone, and keeps the best epoch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ondevice.config import SearchConfig, TrainingConfig
from ondevice.errors import UserError
from ondevice.recommender import Recommender
from ondevice.training import fit as fit_module
from ondevice.training.fit import (
    Fit,
    count_parameters,
    epoch_seed,
    evaluate,
    make_optimizers,
    predict,
    select_device,
    train_step,
)
from ondevice.training.metrics import auc, log_loss

from ..world import World


def fit(world: World, recommender: Recommender | None = None, **settings: Any) -> Fit:
    given = {"epochs": 3, "batch_size": 64, "learning_rate": 0.02, **settings}
    return Fit(
        recommender or world.recommender(),
        world.batches(batch_size=64),
        world.batches("valid"),
        TrainingConfig(**given),
    )


def state(recommender: Recommender) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in recommender.state_dict().items()}


def test_a_world_that_can_be_learnt_is_learnt(world: World) -> None:
    training = fit(world, epochs=8, patience=8)
    result = training.run()
    losses = [entry["train_loss"] for entry in result.history]
    assert losses[0] > losses[-1]
    assert losses[-1] < 0.9 * math.log(2)
    assert result.valid["auc"] > 0.85
    assert evaluate(training.recommender, world.batches("test"))["auc"] > 0.8
    assert (result.epochs, len(result.history)) == (8, 8)
    assert result.seconds > 0


def test_the_best_epoch_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation AUCs 0.6, 0.8, 0.7, 0.8: the first of the best, and its weights."""
    aucs = iter([0.6, 0.8, 0.7, 0.8])
    seen = []

    def judged(recommender: Recommender, *_: object) -> dict[str, float]:
        seen.append(state(recommender))
        return {"auc": next(aucs), "logloss": 0.1 * len(seen)}

    monkeypatch.setattr(fit_module, "evaluate", judged)
    training = fit(world, epochs=4, patience=4)
    result = training.run()
    assert result.valid == {"auc": 0.8, "logloss": pytest.approx(0.2)}
    for name, value in training.recommender.state_dict().items():
        assert torch.equal(value, seen[1][name]), name
    assert not torch.equal(seen[1]["embedding.weight"], seen[3]["embedding.weight"])
    assert not training.recommender.training


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (2, 5), (3, 6)])
def test_patience_counts_epochs_without_a_better_one(
    world: World, monkeypatch: pytest.MonkeyPatch, patience: int, epochs: int
) -> None:
    aucs = iter([0.6, 0.6, 0.7, 0.6, 0.7, 0.5, 0.9, 0.9])
    monkeypatch.setattr(fit_module, "evaluate", lambda *_: {"auc": next(aucs), "logloss": 0.5})
    assert fit(world, epochs=8, patience=patience).run().epochs == epochs


def test_the_average_is_what_is_judged_and_kept(world: World) -> None:
    """With batch norm and dropout; live weights go on unaveraged."""
    training = fit(world, epochs=2, ema_decay=0.9, ema_every=2)
    training.run()
    kept = training.recommender.state_dict()
    best = max(range(2), key=lambda i: training.history[i]["valid_auc"])
    assert (
        training.history[best]["valid_auc"] == evaluate(training.recommender, world.batches("valid"))["auc"]
    )
    plain = fit(world, epochs=2)
    plain.run()
    assert not torch.equal(kept["embedding.weight"], plain.recommender.state_dict()["embedding.weight"])
    assert [entry["train_loss"] for entry in training.history] == [
        entry["train_loss"] for entry in plain.history
    ]


def test_cosine_goes_from_the_rate_to_zero(world: World) -> None:
    training = fit(world, epochs=4, schedule="cosine", learning_rate=0.4)
    steps = len(training.train) * 4
    assert training._learning_rate(0) == pytest.approx(0.4)
    assert training._learning_rate(steps // 4) == pytest.approx(0.2 * (1 + math.sqrt(0.5)))
    assert training._learning_rate(steps // 2) == pytest.approx(0.2)
    assert training._learning_rate(steps) == pytest.approx(0.0, abs=1e-12)
    training._one_epoch()
    (group,) = training.optimizers[0].param_groups
    assert group["lr"] == pytest.approx(training._learning_rate(len(training.train) - 1))
    assert fit(world, learning_rate=0.4)._learning_rate(50) == 0.4


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


def test_prediction_is_evaluation_in_the_order_of_the_split(world: World) -> None:
    recommender = world.recommender().train()
    labels, scores = predict(recommender, world.batches("valid"))
    assert labels.tolist() == world.valid.labels.tolist()
    expected = torch.sigmoid(recommender.eval()(torch.tensor(world.valid.ids).long()))
    torch.testing.assert_close(scores, expected.detach())
    found = evaluate(recommender.train(), world.batches("valid"))
    assert recommender.training
    assert found == {"auc": auc(labels, scores), "logloss": log_loss(labels, scores)}


def test_thresholds_have_an_optimizer_or_a_group_of_their_own(world: World) -> None:
    settings = SearchConfig(learning_rate=0.1, threshold_learning_rate=0.5, weight_decay=0.2)
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


def test_epochs_and_phases_have_seeds_of_their_own() -> None:
    seeds = {epoch_seed(s, p, e) for s in range(3) for p in ("dense", "search") for e in range(5)}
    assert len(seeds) == 30
    assert epoch_seed(0, "dense", 0) == epoch_seed(0, "dense", 0)


def test_a_device_that_is_not_there_is_an_error() -> None:
    assert select_device("cpu") == torch.device("cpu")
    assert select_device("auto").type in ("cpu", "cuda")
    with pytest.raises(UserError, match=r"run\.device: 'cqu' cannot be used here .*use auto or cpu"):
        select_device("cqu")


def test_parameters_are_counted(world: World) -> None:
    """Tables 78·(4 + 1), first linear 12·8 + 8, batch norm 16, output 9, bias 1."""
    assert count_parameters(world.recommender()) == 390 + 104 + 16 + 9 + 1
