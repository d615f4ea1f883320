"""PEP in the loss's own units: the threshold's formula, what survives it, and a search that ends in sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from ondevice.config.sections import Config, DistributedConfig, SizesConfig
from ondevice.config.stores import Int8
from ondevice.errors import UserError
from ondevice.forms.table import TableInfo
from ondevice.methods.context import SearchContext
from ondevice.methods.gains import measure_gains, principal_axes
from ondevice.methods.ranking import Ranking
from ondevice.methods.search import Search
from ondevice.methods.sizes.loss_units import MEMORY
from ondevice.methods.sizes.pep import PEP, begin_with_dense
from ondevice.methods.sizing import shipped_sizes
from ondevice.recommender import Recommender
from ondevice.training.batches import Batches

from ...world import World

IDS = torch.tensor([[1, 3, 6], [2, 3, 8], [1, 4, 6]])  # counts of `info`: 0 5 1 2 4 0 3 2 1
ROWS = torch.arange(9)


def in_loss_units(info: TableInfo, **options: Any) -> PEP:
    """Weights, thresholds, curvature and axes of like magnitude, in evaluation mode."""
    torch.manual_seed(0)
    pep = PEP(info, 4, regime="loss", **options).eval()
    assert pep.loss is not None
    with torch.no_grad():
        pep.weight.normal_()
        pep.s.normal_()
        pep.loss.curvature.uniform_(0.1, 2.0)
        pep.loss.axes.normal_()
        pep.loss.unit.fill_(1.7)
    return pep


@pytest.mark.parametrize("granularity", ["feature", "feature-dimension"])
def test_the_threshold_is_in_units_of_the_loss(info: TableInfo, granularity: str) -> None:
    """V̂ = sign(V)·ReLU(|V| − g(s)·u/√ĥ), ĥ the mean squared gradient times the count; in float64."""
    pep = in_loss_units(info, granularity=granularity)
    assert pep.loss is not None
    weight = pep.weight.detach().double().requires_grad_()
    s = pep.s.detach().double().requires_grad_()
    h = pep.loss.curvature.double() * info.counts[:, None]
    threshold = torch.sigmoid(s) * 1.7 / h.clamp(min=1e-24).sqrt()
    values = torch.sign(weight) * torch.relu(weight.abs() - threshold)
    axes = pep.loss.axes.double()
    expected = torch.stack([values[IDS[:, f]] @ axes[f] for f in range(3)], 1)
    got = pep(IDS)
    assert 0 < int((values[IDS] == 0).sum()) < values[IDS].numel()
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)
    upstream = torch.randn(got.shape)
    ours = torch.autograd.grad(got, (pep.weight, pep.s), upstream)
    theirs = torch.autograd.grad(expected, (weight, s), upstream.double())
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pep.table()[IDS], got.detach(), rtol=1e-5, atol=1e-5)
    assert pep.num_kept() == int((values != 0).sum()) == pep.num_kept_of(ROWS, *pep.row_parameters())


def test_with_equal_curvature_the_order_is_that_of_the_budget_regime(info: TableInfo) -> None:
    even = TableInfo(info.field_offsets, torch.full((9,), 3))
    pep, plain = PEP(even, 4, regime="loss"), PEP(even, 4, regime="budget", count_prior=0.0)
    plain.load_state_dict(pep.state_dict(), strict=False)
    plain.weight.data.uniform_(-0.2, 0.2)
    pep.weight.data.copy_(plain.weight)
    of_loss, of_values = (each.margins(ROWS, *each.row_parameters()) for each in (pep, plain))
    assert of_loss is not None
    assert of_values is not None
    assert torch.equal(of_loss.flatten().argsort(), of_values.flatten().argsort())


def test_what_the_loss_needs_survives_what_is_as_large(info: TableInfo) -> None:
    """Row 2 (one lookup) and row 1 (five), the same values; then a row whose gradients are small."""
    pep = PEP(info, 4, regime="loss", threshold_init=0.0)
    assert pep.loss is not None
    with torch.no_grad():
        pep.weight.fill_(0.3)
        pep.shift_thresholds(0.0)
        assert (pep.table() != 0).any(1).tolist() == [
            False,
            True,
            False,
            False,
            True,
            False,
            True,
            False,
            False,
        ]
        pep.loss.curvature[1] = 0.1
        assert not (pep.table()[1] != 0).any()


def test_squared_gradients_are_averaged_over_the_lookups_of_a_row(info: TableInfo) -> None:
    pep = in_loss_units(info, prefix_dropout=0.0).train()
    assert pep.loss is not None
    pep.loss.axes.copy_(torch.eye(4).expand(3, 4, 4))
    before = pep.loss.curvature.clone()
    upstream = torch.randn(3, 3, 4)
    pep(IDS).backward(upstream / 3)  # of a mean over three rows
    squares = upstream.square()
    expected = before.clone()
    expected[1] = MEMORY**2 * before[1] + (1 - MEMORY**2) * (squares[0, 0] + squares[2, 0]) / 2
    expected[2] = MEMORY * before[2] + (1 - MEMORY) * squares[1, 0]
    torch.testing.assert_close(pep.loss.curvature[:3], expected[:3])
    assert torch.equal(pep.loss.curvature[[0, 5, 7]], before[[0, 5, 7]])


def test_a_step_reads_some_rows_at_their_leading_values(info: TableInfo) -> None:
    pep = in_loss_units(info, prefix_dropout=1.0).train()
    assert pep.loss is not None
    with torch.no_grad():
        pep.loss.axes.copy_(torch.eye(4).expand(3, 4, 4))
        pep.weight.fill_(5.0)
        pep.s.fill_(-9.0)
    kept = torch.cat([pep(IDS).detach().flatten(0, 1) != 0 for _ in range(20)])
    assert bool((kept.int().diff(dim=1) <= 0).all())
    assert {1, 4} <= set(kept.sum(1).tolist()) <= {1, 2, 3, 4}
    assert bool((pep.eval()(IDS) != 0).all())


@dataclass
class Context:
    """What a search from a trained model asks for."""

    world: World
    config: Config
    recommender: Recommender
    trained: Recommender
    item_columns: tuple[int, ...] = (2,)

    @property
    def info(self) -> TableInfo:
        return self.world.info

    def dense(self) -> Recommender:
        return self.trained

    def train_batches(self, batch_size: int) -> Batches:
        return self.world.batches(batch_size=batch_size)


def begun(world: World, first_order: str) -> Context:
    """A search in the loss's units with all four axes, where a model that stands for a trained one is."""
    recommender = world.recommender("pep", regime="loss", prefix_dropout=0.0)
    config = replace(Config(), compact=replace(Config().compact, store=Int8(first_order=first_order)))
    context = Context(world, config, recommender, world.recommender("uniform", seed=1, init_std=0.3))
    begin_with_dense(cast(SearchContext, context))
    return context


def test_a_search_begins_where_the_dense_model_is(world: World) -> None:
    context = begun(world, "rows")
    ids = torch.as_tensor(world.valid.ids).long()
    with torch.no_grad():
        context.recommender.embedding.s.fill_(-30.0)
        context.recommender.first_order.s.fill_(-30.0)
        torch.testing.assert_close(
            context.recommender.eval()(ids), context.trained.eval()(ids), rtol=1e-3, atol=1e-4
        )


def test_curvature_begins_with_that_of_the_dense_model(world: World) -> None:
    """p(1 − p)·(b·∂logit/∂e)², the mean over a row's lookups; along each axis the same in the mean of a field."""
    context = begun(world, "rows")
    trained = context.trained.eval()
    axes = principal_axes(trained, world.batches(), (), num_dims=4, pairs=0.0)
    ids = torch.as_tensor(world.train.ids).long()
    embeddings = trained.embed(ids).detach().requires_grad_()
    logits = trained.logits_of(embeddings, ids)
    (gradients,) = torch.autograd.grad(logits.sum(), embeddings)
    p = torch.sigmoid(logits.detach())
    along = torch.einsum("bfd,fdk->bfk", gradients, axes.directions).square() * (p * (1 - p))[:, None, None]
    of_field = along.mean(0)
    torch.testing.assert_close(of_field, of_field[:, :1].expand(3, 4), rtol=1e-3, atol=0.0)
    row = int(ids[0, 0])
    torch.testing.assert_close(
        axes.curvature[row], along[:, 0][ids[:, 0] == row].sum(0), rtol=1e-4, atol=1e-7
    )
    assert int(axes.lookups[row]) == int(world.info.counts[row]) == int((ids == row).sum())
    assert float(axes.logit_curvature[row]) == pytest.approx(float((p * (1 - p))[ids[:, 0] == row].sum()))
    loss = PEP(world.info, 4, regime="loss").loss
    assert loss is not None
    loss.begin(axes.directions, axes.curvature, axes.lookups)
    every = torch.arange(world.info.num_embeddings)
    torch.testing.assert_close(
        loss.worth(every, axes.coordinates).square() / 2,
        measure_gains(trained, world.batches(), (), num_dims=4, pairs=0.0),
    )


@pytest.mark.parametrize("first_order", ["rows", "projection"])
def test_budgets_are_reached_and_end_in_rankings(world: World, first_order: str) -> None:
    context = begun(world, first_order)
    search = Search(
        context.recommender,
        world.batches(),
        world.batches("valid"),
        SizesConfig(epochs=3, learning_rate=0.01, check_every=5),
        [200, 80],
    )
    result = search.run()
    assert sorted(result.forms) == [80, 200]
    assert search._num_kept() <= 80
    for forms in result.forms.values():
        assert isinstance(forms[0], Ranking)
        assert not forms[0].gains[world.info.counts == 0].any()
    largest, smallest = (shipped_sizes(result.forms[t][:1], t) for t in (200, 80))
    assert 190 <= largest[0].num_kept() <= 200
    assert 70 <= smallest[0].num_kept() <= 80


def test_an_interrupted_search_ends_alike(world: World, tmp_path: Path) -> None:
    def search(epochs: int, checkpoint: Path | None = None) -> Search:
        settings = SizesConfig(epochs=3, learning_rate=0.01, check_every=5)
        tables, batches = begun(world, "projection").recommender, world.batches()
        made = Search(tables, batches, world.batches("valid"), settings, [300, 80], checkpoint=checkpoint)
        while made.epoch < epochs:
            made._one_epoch()
        return made

    search(2, None)._save(tmp_path / "state")
    resumed = search(2, tmp_path / "state").run()
    for one, other in zip(search(0).run().forms.values(), resumed.forms.values(), strict=True):
        assert torch.equal(one[0].tensors()["gains"], other[0].tensors()["gains"])


def test_options_of_the_loss_regime_are_its_own(info: TableInfo) -> None:
    with pytest.raises(UserError, match=r"granularity: got 'field'.*belong to rows"):
        PEP(info, 4, regime="loss", granularity="field")
    with pytest.raises(UserError, match="of regime 'loss', but regime is 'budget'"):
        PEP(info, 4, prefix_dropout=0.1)
    with pytest.raises(UserError, match="of regime 'loss', but regime is 'budget'"):
        PEP(info, 4, max_size=8)
    narrow = PEP(info, 4, regime="loss", max_size=2)
    assert narrow.weight.shape == (9, 2)
    with pytest.raises(
        UserError, match=r"'loss' with distributed\.mode=ddp, but curvature is measured by one process"
    ):
        narrow.check(replace(Config(), distributed=DistributedConfig(mode="ddp")))


@pytest.mark.parametrize(
    ("options", "largest", "searched"),
    [
        ({"regime": "loss"}, 16, 16),
        ({"regime": "loss"}, 4, 8),
        ({"regime": "loss"}, None, 8),
        ({"regime": "loss", "max_size": 6}, 16, 6),
        ({"regime": "loss", "max_size": None}, 12, 12),
    ],
)
def test_a_search_looks_at_as_many_dimensions_as_are_stored(
    info: TableInfo, options: dict[str, Any], largest: int | None, searched: int
) -> None:
    """Else rows that keep all of theirs leave a budget unused, and the largest has to be said twice."""
    assert PEP(info, 32, **PEP.completed(options, largest)).embedding_dim == searched


def test_other_regimes_have_all_dimensions(info: TableInfo) -> None:
    assert PEP.completed({"regime": "budget"}, 4) == {"regime": "budget"}
    assert PEP(info, 32, **PEP.completed({}, 4)).embedding_dim == 32
