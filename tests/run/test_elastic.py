"""Elastic training: nested levels, compact models that are parts of one, and the run that they leave."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ondevice.bundle.estimate import fixed_bytes
from ondevice.config.budget import elastic_label
from ondevice.config.file import from_dict
from ondevice.config.sections import Config
from ondevice.config.stores import Codes as CodesStore
from ondevice.config.stores import Int8
from ondevice.data import load_dataset
from ondevice.errors import UserError
from ondevice.forms.base import Form
from ondevice.forms.codes import CodedEmbedding, Codes
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo, table_info
from ondevice.models import MODELS
from ondevice.models.layers import hidden_linears
from ondevice.recommender import Recommender, cut, rebuild
from ondevice.run import elastic as module
from ondevice.run.budgets import Budgets, final_forms
from ondevice.run.directory import Run
from ondevice.run.elastic import ElasticFit, ElasticRun, Masks, calibrate, compact_model
from ondevice.run.levels import Level, Staircases, load_staircases, save_staircases
from ondevice.run.pipeline import Pipeline
from ondevice.training.step import train_step

from ..optional import torchao_or_skip
from ..runs import Make, laid_over

DIM = 8


def one_field(count: int) -> TableInfo:
    """A field of so many values, each seen once."""
    return TableInfo(torch.tensor([0, count]), torch.ones(count, dtype=torch.int64))


def elastic_config(tiny_config: Make, **compact: Any) -> dict[str, Any]:
    """Three budgets of a rule's sizes."""
    values = tiny_config(
        compact={
            "sizes": {"name": "frequency", "max_size": 8},
            "budgets": [60, 400, 150],
            "store": {"max_size": 8},
            "train": {"elastic": True},
        },
        embedding={"dim": DIM},
    )
    return laid_over(values, {"compact": compact})


def budgets_of(values: dict[str, Any]) -> Budgets:
    config = from_dict(values)
    dataset = load_dataset(config.data.name, **config.data.options)
    return Budgets(config, dataset, table_info(dataset.vocabulary.field_offsets, dataset.counts))


def test_a_search_for_codes_stops_at_as_many_values_as_their_bytes_hold(tiny_config: Make) -> None:
    """A rule that is asked for too few leaves rows out for good."""
    result = []
    for more in ({"max_size": 4}, {"name": "codes", "max_size": 4, "code_dims": 2, "size_step": 2}):
        budgets = budgets_of(elastic_config(tiny_config, store=more, endpoints=["forward"]))
        fixed = fixed_bytes(budgets.base_model(4), budgets.dataset, budgets.endpoints)
        result.append(budgets.search_target(f"{fixed + 250}B"))
    assert result == [200, 400]


def is_part(inner: list[Form], outer: list[Form]) -> bool:
    return all(bool((a.row_sizes() <= b.row_sizes()).all()) for a, b in zip(inner, outer, strict=True))


@given(
    st.lists(st.lists(st.integers(0, DIM), min_size=6, max_size=6), min_size=2, max_size=4),
    st.lists(st.integers(1, 60), min_size=4, max_size=4, unique=True),
    st.integers(1, 60),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([None, 2]),
)
def test_levels_are_nested_whatever_was_found(
    counts: list[list[int]], targets: list[int], between: int, step: int, code_dims: int | None
) -> None:
    """Counts that contradict one another from budget to budget still give levels each under the next."""
    if code_dims is not None:
        step = max(step, code_dims)
    values: dict[str, Any] = {"size_step": step, "max_size": DIM, "first_order": "none"}
    store = Int8(**values) if code_dims is None else CodesStore(**values, code_dims=code_dims)

    def final(result: list[Form], target: int, max_size: int | None = None) -> list[Form]:
        return final_forms(result, target, store)

    staircases = Staircases([], final)
    for count, target in zip(counts, sorted(targets, reverse=True), strict=False):
        result: list[Form] = [Sizes(torch.tensor(count), DIM)]
        larger = staircases.levels[-1].forms if staircases.levels else None
        try:
            forms = Staircases._under(final(result, target), larger)
        except UserError:
            continue
        staircases.levels.append(Level(str(target), target, None, result, forms))
    if not staircases.levels:
        return
    for larger_level, smaller_level in itertools.pairwise(staircases.levels):
        assert is_part(smaller_level.forms, larger_level.forms)
    try:
        forms = staircases.at(between)
    except UserError:
        return
    assert is_part(forms, staircases.levels[0].forms)
    assert forms[0].num_kept() <= between or between >= staircases.levels[-1].target
    assert isinstance(forms[0], Codes) == (code_dims is not None)


def test_the_smaller_of_two_sizes_by_hand() -> None:
    sizes = Sizes(torch.tensor([4, 0, 2]), 8).within(Sizes(torch.tensor([2, 6, 2]), 6))
    assert sizes.row_sizes().tolist() == [2, 0, 2]
    codes = Codes(torch.tensor([4, 2]), 4, 2).within(Codes(torch.tensor([2, 8]), 8, 2))
    assert isinstance(codes, Codes)
    assert (codes.row_sizes().tolist(), codes.dim) == ([2, 2], 2)


def test_levels_of_a_run_are_read_back(tiny_config: Make, tmp_path: Path) -> None:
    for more in ({"max_size": 8}, {"name": "codes", "max_size": 8, "code_dims": 2, "first_order": "none"}):
        budgets = budgets_of(elastic_config(tiny_config, store=more))
        result = Sizes(torch.tensor(budgets.dataset.counts).clamp(max=8), DIM)
        forms: list[Form] = [result, Sizes((result.sizes > 0).long(), 1)]
        made = Staircases.of_budgets(budgets, [(60, 60, forms), ("400", 400, forms), (150, 150, forms)])
        assert [level.label for level in made.levels] == ["400", "150", "60"]
        save_staircases(tmp_path / "levels", made)
        again = load_staircases(tmp_path / "levels", budgets)
        for target in (60, 61, 100, 150, 399, 400, 500):
            for one, other in zip(made.at(target), again.at(target), strict=True):
                assert type(one) is type(other)
                assert torch.equal(one.row_sizes(), other.row_sizes())
    with pytest.raises(UserError, match="holds no levels of an elastic model"):
        load_staircases(tmp_path / "none", budgets)


def large(info: TableInfo, model: str, form: Form | None = None, projected: bool = False) -> Recommender:
    """A compact recommender with random weights of all kinds."""
    torch.manual_seed(1)
    sizes = Sizes(torch.full((info.num_embeddings,), 6), 6)
    forms: list[Form] = [form or sizes]
    if MODELS[model].uses_first_order and not projected:
        forms.append(Sizes(torch.ones(info.num_embeddings, dtype=torch.int64), 1))
    made = rebuild(info, model=model, model_options={}, forms=forms, init_std=0.5, projected=projected)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 1 or parameter is made.projection:
                parameter.normal_(0, 0.3)
        for module in made.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    for table in made.tables():
        if isinstance(table, CodedEmbedding):
            table.begin_codes()
    return made.eval()


def all_ids(info: TableInfo) -> Tensor:
    bounds = info.field_offsets.tolist()
    return torch.cartesian_prod(*(torch.arange(a, b) for a, b in itertools.pairwise(bounds)))


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("kind", ["values", "codes", "projected"])
def test_a_cut_scores_as_the_whole_does_at_that_level(info: TableInfo, model: str, kind: str) -> None:
    """In training the level is a mask, in the cut the other values are gone, and the widest of them too."""
    sizes = torch.tensor([2, 4, 0, 2, 0, 0, 2, 4, 0])
    form = Codes(torch.full((9,), 6), 6, 2) if kind == "codes" else None
    whole = large(info, model, form, projected=kind == "projected")
    small: list[Form] = [Codes(sizes, 4, 2) if kind == "codes" else Sizes(sizes, 6)]
    if whole.first_order is not None:
        small.append(Sizes((sizes > 0).long(), 1))
    part = cut(whole, small, model=model, model_options={})
    assert part.embedding.embedding_dim == 4
    assert part.num_kept() == sum(f.num_kept() for f in small)
    ids = all_ids(info)
    before = whole(ids)
    Masks.of(whole, small).apply(whole)
    assert whole.num_kept() == part.num_kept()
    torch.testing.assert_close(part(ids), whole(ids), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, whole(ids))


def test_a_step_at_a_level_moves_nothing_beyond_it(info: TableInfo) -> None:
    whole = large(info, "fm").train()
    before = [table.weight.detach().clone() for table in whole.tables()]
    sizes = torch.tensor([2, 4, 0, 2, 0, 0, 2, 4, 0])
    level = Masks.of(whole, [Sizes(sizes, 6), Sizes((sizes > 0).long(), 1)])
    level.apply(whole)
    optimizer = torch.optim.SGD(whole.parameters(), lr=1.0)
    ids = all_ids(info)
    train_step(whole, [optimizer], ids, torch.ones(len(ids)))
    for table, old, kept in zip(whole.tables(), before, level.values, strict=True):
        moved = (table.weight.detach() - old) != 0
        assert moved.any()
        assert not moved[~kept].any()


def test_calibration_sets_the_statistics_of_the_rows_and_nothing_else(info: TableInfo) -> None:
    whole = large(info, "deepfm")
    ids = all_ids(info)
    seen: list[Tensor] = []
    first = next(m for m in whole.modules() if isinstance(m, torch.nn.BatchNorm1d))
    hook = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    whole(ids)
    hook.remove()
    weights = [p.detach().clone() for p in whole.parameters()]
    calibrate(whole, ids)
    torch.testing.assert_close(first.running_mean, seen[0].mean(0))
    torch.testing.assert_close(first.running_var, seen[0].var(0))
    assert not whole.training
    assert not first.training
    assert first.momentum == 0.1
    assert all(torch.equal(a, b) for a, b in zip(weights, whole.parameters(), strict=True))
    calibrate(large(info, "fm"), ids)  # no batch norm: nothing to do


def test_an_elastic_run(tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One training; the epoch with the best mean is kept; each compact model is a part of the largest."""
    taken: list[int] = []
    apply = Masks.apply
    monkeypatch.setattr(
        Masks, "apply", lambda self, r: taken.append(sum(int(v.sum()) for v in self.values)) or apply(self, r)
    )
    values = elastic_config(tiny_config, teach={"teachers": ["dense"]}, train={"epochs": 3})
    metrics = Pipeline(from_dict(values), tmp_path / "run").run()
    assert set(metrics["budgets"]) == {"400", "150", "60"}
    kept = {label: entry["kept_parameters"] for label, entry in metrics["budgets"].items()}
    assert kept["400"] > kept["150"] > kept["60"]
    assert all(kept[label] <= int(label) for label in kept)
    history = metrics["history"]["elastic"]
    means = [sum(e[f"valid_auc_{label}"] for label in kept) / 3 for e in history]
    assert [e["valid_auc"] for e in history] == pytest.approx(means)
    assert metrics["elastic"]["valid_auc"] == max(means)
    best = history[means.index(max(means))]
    for label, entry in metrics["budgets"].items():
        assert entry["valid_auc"] == pytest.approx(best[f"valid_auc_{label}"])
        assert entry["test_auc"] is not None
    steps = -(-1600 // 128)
    assert (
        taken[: 3 * steps].count(kept["400"]) >= steps - 1
    )  # a third each, and the largest at the end of epochs
    assert taken[: 3 * steps].count(kept["60"]) >= steps - 1
    assert len(set(taken)) == 5  # three budgets, and one level between each two
    run = Run(tmp_path / "run")
    assert run.budgets() == ["400", "150", "60"]
    whole = run.compact("400").embedding.table()
    for label in ("150", "60"):
        table = run.compact(label).embedding.table()
        is_kept = table != 0
        assert torch.equal(table[is_kept], whole[:, : table.shape[1]][is_kept])


CODED = {"name": "codes", "max_size": 8, "code_dims": 2, "first_order": "projection"}
ROUNDED = {**CODED, "linear_bits": 4}


@pytest.mark.parametrize("store", [{}, CODED, ROUNDED])
def test_any_number_of_values_is_cut_without_training(
    tiny_config: Make, tmp_path: Path, store: dict[str, Any]
) -> None:
    train = {"ema_decay": 0.9} if store else {}
    values = elastic_config(tiny_config, store=store, train=train)
    with torchao_or_skip():
        metrics = Pipeline(from_dict(values), tmp_path / "run").run()
    run = Run(tmp_path / "run")
    elastic = ElasticRun(run)
    best = max((e for e in metrics["history"]["elastic"] if e["final"]), key=lambda e: e["valid_auc"])
    for label, entry in metrics["budgets"].items():
        assert entry["valid_auc"] == pytest.approx(best[f"valid_auc_{label}"], abs=1e-6)
    for label, target in (("400", 400), ("150", 150)):
        again = elastic.valid(elastic.compact(target))
        assert again["auc"] == pytest.approx(metrics["budgets"][label]["valid_auc"], abs=1e-6)
    if "linear_bits" in store:
        whole = hidden_linears(elastic.recommender.model)[
            0
        ].weight  # not rounded, so that parts find their own scale
        assert len(whole[0].unique()) > 16
        for label in ("400", "150", "60"):
            compact = compact_model(run, label)
            assert compact.model.linear_bits == 4
            for layer in hidden_linears(compact.model):
                assert max(len(row.unique()) for row in layer.weight) <= 16
    between = compact_model(run, elastic_label(220))
    assert metrics["budgets"]["150"]["kept_parameters"] < between.num_kept() <= 220
    least = elastic.least_target()
    assert elastic.compact(least).num_kept() > 0
    with pytest.raises(UserError, match=r"nothing is left"):
        elastic.compact(least - 1)


def test_a_run_that_is_cut_off_ends_alike(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = elastic_config(tiny_config, train={"epochs": 3, "ema_decay": 0.9})
    whole = Pipeline(from_dict(values), tmp_path / "whole").run()
    finish = ElasticFit._finish_epoch

    def cut_off(self: ElasticFit, *arguments: Any) -> None:
        if self.epoch == 2:
            raise KeyboardInterrupt
        finish(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ElasticFit, "_finish_epoch", cut_off)
        with pytest.raises(KeyboardInterrupt):
            Pipeline(from_dict(values), tmp_path / "cut").run()
    again = Pipeline(from_dict(values), tmp_path / "cut", resume=True).run()
    for label, entry in whole["budgets"].items():
        for key in ("valid_auc", "test_auc", "kept_parameters"):
            assert again["budgets"][label][key] == entry[key], (label, key)


def test_budgets_under_the_largest_may_be_added(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = elastic_config(tiny_config)
    Pipeline(from_dict(values), tmp_path / "run").run()
    monkeypatch.setattr(module.ElasticFit, "run", lambda self: pytest.fail("trained again"))
    values["compact"]["budgets"] = [60, 400, 150, 100]
    metrics = Pipeline(from_dict(values), tmp_path / "run", resume=True).run()
    assert 60 < metrics["budgets"]["100"]["kept_parameters"] <= 100
    values["compact"]["budgets"] = [60, 400, 150, 500]
    with pytest.raises(
        UserError, match=r"compact\.budgets: 500 is more than the elastic model was trained for"
    ):
        Pipeline(from_dict(values), tmp_path / "run", resume=True).run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compact": {"budgets": [100]}}, r"compact\.train\.elastic: .*compact\.budgets has 100 alone"),
        (
            {"compact": {"train": {"elastic": True}, "store": {"name": "positions"}}},
            r"compact\.store\.name: got 'positions'; it must be int8 or codes when compact\.train\.elastic is true",
        ),
        (
            {"compact": {"endpoints": ["rank", "sing"]}},
            r"compact\.endpoints: .* some of forward, rank, recommend",
        ),
        ({"compact": {"endpoints": []}}, r"compact\.endpoints"),
    ],
)
def test_what_an_elastic_run_cannot_do_is_said_first(
    tiny_config: Make, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    values = tiny_config(compact={"train": {"elastic": True}})
    values = laid_over(values, changes)
    with pytest.raises(UserError, match=message):
        Pipeline(from_dict(values), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_config_reads_back_with_methods() -> None:
    config = from_dict({"compact": {"endpoints": ["forward", "rank"], "train": {"elastic": True}}})
    assert isinstance(config, Config)
    again = from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.compact == config.compact
