"""The search: thresholds fall below each budget, on schedule or by themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ondevice.config.sections import SizesConfig
from ondevice.errors import UserError
from ondevice.methods.search import Search

from ..world import World

TOTAL = 78 * 5  # values of both tables


def search(world: World, targets: list[int], regime: str = "budget", **changes: Any) -> Search:
    settings = {"epochs": 3, "learning_rate": 0.01, "check_every": 5, **changes}
    options = settings.pop("options", {})
    return Search(
        world.recommender("pep", regime=regime, **options),
        world.batches(),
        world.batches("valid"),
        SizesConfig(**settings),
        targets,
    )


@pytest.mark.parametrize("granularity", ["feature-dimension", "feature", "field-dimension", "global"])
def test_one_search_gives_every_budget(world: World, granularity: str) -> None:
    result = search(world, [60, 250, 120], options={"granularity": granularity}).run()
    assert sorted(result.forms) == [60, 120, 250]
    kept = {target: sum(f.num_kept() for f in forms) for target, forms in result.forms.items()}
    assert 0 < kept[60] < kept[120] < kept[250]
    assert all(kept[target] <= target for target in kept)
    assert all(kept[target] > 0.8 * target for target in kept)


def test_the_schedule_is_geometric(world: World) -> None:
    """Half way between 390 values and 39 it keeps √(390·39); at the end exactly the target."""
    run = search(world, [39])
    run._follow_budget(0)
    assert run._num_kept() == TOTAL - int((run.recommender.embedding.table() == 0).sum())
    last = run.total_steps - 1
    for step in (last // 2, last):
        run._follow_budget(step)
        expected = int(TOTAL * 0.1 ** (step / last))
        assert abs(run._num_kept() - expected) <= 1
    assert abs(run._num_kept() - 39) <= 1


@pytest.mark.parametrize("granularity", ["feature-dimension", "feature"])
def test_a_sample_of_rows_stands_for_all(world: World, granularity: str) -> None:
    """Every third row: as many of their values are kept as said, and as the schedule says."""
    run = search(world, [39], options={"granularity": granularity})
    (everything,) = {t.num_embeddings for t in run.tables}
    sampled = -(-everything // 3) * 5
    for step in (0, run.total_steps // 2, run.total_steps):
        seen = run._follow_budget(step, stride=3)
        assert seen == sum(table.num_kept_of(*run._rows(table, 3)) for table in run.tables)
        assert abs(seen - run._scheduled(step, sampled, sampled / TOTAL)) <= 1 or step == 0


def test_methods_without_a_budget_are_not_led(world: World) -> None:
    assert search(world, [39], regime="decay")._follow_budget(5) is None


def test_a_shift_also_lowers_thresholds_that_took_too_much(world: World) -> None:
    run = search(world, [39])
    run._follow_budget(run.total_steps)
    run._follow_budget(run.total_steps // 2)
    assert run._num_kept() > 100


def test_thresholds_are_solved_over_both_tables(world: World) -> None:
    run = search(world, [100])
    run.recommender.first_order.weight.data.mul_(100)
    run._follow_budget(run.total_steps)
    assert run.recommender.first_order.num_kept() > 60
    assert abs(run._num_kept() - 100) <= 1


def test_a_budget_of_everything_prunes_nothing(world: World) -> None:
    result = search(world, [TOTAL], epochs=1).run()
    seen = int((world.info.counts > 0).sum())
    assert sum(f.num_kept() for f in result.forms[TOTAL]) > 0.9 * 5 * seen


def test_decay_reaches_a_budget_as_time_goes_by(world: World) -> None:
    """The published regime: thresholds climb from s₀ whatever the data says."""
    result = search(
        world,
        [150],
        regime="decay",
        epochs=12,
        weight_decay=1e-3,
        threshold_learning_rate=0.1,
        options={"threshold_init": -8.0},
    ).run()
    kept = [entry["kept"] for entry in result.history]
    assert kept[0] > kept[-1]
    assert 0 < sum(f.num_kept() for f in result.forms[150]) <= 150


def test_a_budget_that_is_not_reached_says_what_to_do(world: World) -> None:
    with pytest.raises(
        UserError, match=r"values are left after 1 epochs, the budget was 100; raise compact\.sizes"
    ):
        search(world, [100], regime="data", epochs=1).run()


def test_the_search_stops_when_every_budget_is_met(world: World) -> None:
    """Thresholds far above every weight: the first check ends it, not the epochs."""
    run = search(world, [389], regime="data", epochs=9, options={"threshold_init": -1.0})
    assert run.run().history[-1]["epoch"] == 1


def test_a_search_is_the_same_again(world: World) -> None:
    first, second = search(world, [100]), search(world, [100])
    forms = first.run().forms[100]
    torch.manual_seed(12345)
    for one, other in zip(forms, second.run().forms[100], strict=True):
        assert torch.equal(one.mask(), other.mask())
    assert torch.equal(first.recommender.embedding.s, second.recommender.embedding.s)


def test_first_order_weights_of_another_method_do_not_count(world: World) -> None:
    """``embedding.first_order: uniform``: the budget is the embeddings' own."""
    from ondevice.methods.build import build

    recommender = build(
        world.info,
        model="fm",
        model_options={},
        method="pep",
        method_options={},
        embedding_dim=4,
        first_order_method="uniform",
    )
    settings = SizesConfig(epochs=2, check_every=5)
    run = Search(recommender, world.batches(), world.batches("valid"), settings, [100])
    embedding, first_order = run.run().forms[100]
    assert 80 < embedding.num_kept() <= 100
    assert first_order.num_kept() == int((world.info.counts > 0).sum())
