"""One training: it learns, stops by validation alone, and keeps the best epoch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ondevice.config.sections import TrainConfig
from ondevice.errors import UserError
from ondevice.recommender import Recommender
from ondevice.training import fit as fit_module
from ondevice.training.fit import (
    Fit,
    count_parameters,
    epoch_seed,
    evaluate,
    predict,
    select_device,
)
from ondevice.training.metrics import auc, log_loss

from ..world import World


def fit(world: World, recommender: Recommender | None = None, **settings: Any) -> Fit:
    given = {"epochs": 3, "batch_size": 64, "learning_rate": 0.02, **settings}
    return Fit(
        recommender or world.recommender(),
        world.batches(batch_size=64),
        world.batches("valid"),
        TrainConfig(**given),
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


def test_prediction_is_evaluation_in_the_order_of_the_split(world: World) -> None:
    recommender = world.recommender().train()
    labels, scores = predict(recommender, world.batches("valid"))
    assert labels.tolist() == world.valid.labels.tolist()
    expected = torch.sigmoid(recommender.eval()(torch.tensor(world.valid.ids).long()))
    torch.testing.assert_close(scores, expected.detach())
    result = evaluate(recommender.train(), world.batches("valid"))
    assert recommender.training
    assert result == {"auc": auc(labels, scores), "logloss": log_loss(labels, scores)}


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
