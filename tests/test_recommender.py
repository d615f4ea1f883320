"""Ids to logits, and the second phase: masks, narrowed layers, removed rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ondevice.errors import UserError
from ondevice.forms.mask import Mask
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.methods import METHODS
from ondevice.methods.build import build
from ondevice.models import MODELS
from ondevice.recommender import Recommender, pruned_id_map, rebuild

IDS = torch.tensor([[1, 3, 6], [2, 4, 8], [0, 3, 5]])


def whole(info: TableInfo, model: str = "fm", seed: int = 0, **changes: Any) -> Recommender:
    torch.manual_seed(seed)
    options: dict[str, Any] = {"model_options": {}, "method": "uniform", "method_options": {}}
    return build(info, model=model, embedding_dim=4, **{**options, **changes})


def test_a_logit_by_hand(info: TableInfo) -> None:
    """bias 10 + first-order 1 + 2 + 3 + pairs (1·2 + 1·3 + 2·3) · 4 dimensions."""
    recommender = whole(info)
    with torch.no_grad():
        recommender.bias.fill_(10.0)
        for value, row in zip((1.0, 2.0, 3.0), IDS[0], strict=True):
            recommender.embedding.weight[row] = value
            recommender.first_order.weight[row] = value
    assert recommender(IDS[:1]).tolist() == [10 + 6 + 44]


def test_the_full_tables_are_counted_with_first_order_weights(info: TableInfo) -> None:
    recommender = whole(info)
    assert recommender.num_values() == 9 * 4 + 9
    assert recommender.num_kept() == 45


def test_first_order_weights_can_have_a_method_of_their_own(info: TableInfo) -> None:
    recommender = whole(
        info, method="pep", method_options={"regime": "decay"}, first_order_method="frequency"
    )
    assert type(recommender.embedding) is METHODS["pep"]
    assert type(recommender.first_order) is METHODS["frequency"]
    both = whole(info, method="pep", method_options={"regime": "decay"})
    assert both.first_order.regime == "decay"


def test_unknown_names_and_options_are_refused(info: TableInfo) -> None:
    with pytest.raises(UserError, match=r"unknown model 'deepfn'.*did you mean 'deepfm'"):
        whole(info, model="deepfn")
    with pytest.raises(UserError, match=r"unknown method 'pepp'.*did you mean 'pep'"):
        whole(info, method="pepp")
    with pytest.raises(UserError, match=r"model\.hiden: model 'deepfm' has no such option .*'hidden'"):
        whole(info, model="deepfm", model_options={"hiden": (8,)})
    with pytest.raises(UserError, match=r"method\.regim: method 'pep' has no such option .*'regime'"):
        whole(info, method="pep", method_options={"regim": "decay"})


def test_ids_that_keep_nothing_read_their_unknown_id(info: TableInfo) -> None:
    """Id 2 keeps nothing; id 4 keeps only its first-order weight; id 7 only its embedding."""
    forms = [
        Sizes(torch.tensor([1, 2, 0, 1, 0, 1, 1, 1, 0]), 4),
        Sizes(torch.tensor([1, 1, 0, 1, 1, 1, 1, 0, 0]), 1),
    ]
    assert pruned_id_map(info, forms).tolist() == [0, 1, 0, 3, 4, 5, 6, 7, 5]
    recommender = rebuild(info, model="fm", model_options={}, forms=forms, init_std=1.0)
    got = recommender(torch.tensor([[2, 3, 8], [0, 3, 5], [2, 3, 6]])).tolist()
    assert got[0] == got[1] != got[2]


def test_an_unknown_id_that_keeps_nothing_is_zero(info: TableInfo) -> None:
    forms = [Sizes(torch.tensor([0, 2, 0, 1, 0, 0, 1, 1, 0]), 4)]
    forms.append(Sizes((forms[0].sizes > 0).long(), 1))
    recommender = rebuild(info, model="fm", model_options={}, forms=forms, init_std=1.0)
    assert recommender.embed(torch.tensor([[2, 3, 8]]))[0, [0, 2]].abs().sum() == 0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["sizes", "positions"])
def test_rebuild_starts_from_the_initial_weights(info: TableInfo, model: str, kind: str) -> None:
    """Under the mask, and with the columns of the first linear layer that still meet something."""
    initial = whole(info, model)
    with torch.no_grad():
        initial.bias.fill_(0.7)
    kept = torch.rand(9, 4) < 0.5
    kept[3], kept[:, 3] = False, False
    embedding = Mask(kept) if kind == "positions" else Sizes(torch.tensor([1, 2, 0, 3, 0, 1, 1, 2, 1]), 4)
    forms = [embedding, Sizes((embedding.row_sizes() > 0).long(), 1)][: len(initial.tables())]
    second = rebuild(info, model=model, model_options={}, forms=forms, initial=initial)
    width = 3 if kind == "sizes" else 4
    expected = initial.embedding.weight * embedding.mask()
    assert torch.equal(second.embedding.weight, expected[:, :width])
    if len(forms) > 1:
        assert torch.equal(second.first_order.weight, initial.first_order.weight * forms[1].mask())
    assert second.bias.item() == initial.bias.item() == pytest.approx(0.7)
    # The wide model fed with the masked embeddings must say the same as the narrow one.
    with torch.no_grad():
        initial.embedding.weight.copy_(expected)
        if len(forms) > 1:
            initial.first_order.weight.mul_(forms[1].mask())
    mapped = pruned_id_map(info, forms)[IDS]
    torch.testing.assert_close(second.eval()(IDS), initial.eval()(mapped), rtol=1e-5, atol=1e-6)


def test_rebuild_without_initial_weights_draws_new_ones(info: TableInfo) -> None:
    initial = whole(info, "deepfm")
    forms = [Sizes(torch.full((9,), 2), 4), Sizes(torch.ones(9, dtype=torch.int64), 1)]
    fresh = rebuild(info, model="deepfm", model_options={}, forms=forms, init_std=0.01)
    assert fresh.embedding.weight.shape == (9, 2)
    assert 0 < fresh.embedding.weight.abs().max() < 0.1
    assert fresh.model.dnn.layers[0].in_features == 3 * 2
    assert not torch.equal(fresh.embedding.weight, initial.embedding.weight[:, :2])


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("deepfm", {"hidden": (6, 5), "dropout": 0.0}),
        ("autoint", {"num_heads": 1, "head_dim": 6, "num_layers": 2}),
    ],
)
def test_only_layers_that_read_embeddings_lose_columns(
    info: TableInfo, model: str, options: dict[str, Any]
) -> None:
    """Three fields of two dimensions: a later layer of six inputs is none of the first, whatever its width."""
    torch.manual_seed(0)
    sizes = torch.tensor([2, 2, 0, 1, 1, 0, 2, 2, 0])  # the second field has nothing in its second dimension
    recommender = rebuild(info, model=model, model_options=options, forms=[Sizes(sizes, 4)], init_std=1.0)
    reading = {id(layer.linear): layer for layer in recommender.model.input_layers()}
    zeroed = 0
    for module in recommender.model.modules():
        if isinstance(module, torch.nn.Linear) and module.out_features > 1:
            columns = (module.weight == 0).all(0).nonzero().flatten().tolist()
            layer = reading.get(id(module))
            assert columns == ([3] if layer is not None and layer.fields is not None else []), module
            zeroed += len(columns)
    assert zeroed == 1


def test_weights_of_a_later_layer_of_the_same_width_are_kept(info: TableInfo) -> None:
    """From 4 to 2 dimensions the first layer narrows from 12 inputs; a second one of 12 does not."""
    options = {"hidden": (12, 6), "dropout": 0.0}
    initial = whole(info, model="deepfm", model_options=options)
    narrow = {"hidden": (6, 6), "dropout": 0.0}
    forms = [Sizes(torch.full((9,), 2), 4), Sizes(torch.ones(9, dtype=torch.int64), 1)]
    torch.manual_seed(5)
    fresh = rebuild(info, model="deepfm", model_options=narrow, forms=forms)
    torch.manual_seed(5)
    compact = rebuild(info, model="deepfm", model_options=narrow, forms=forms, initial=initial)
    linears = [module for module in compact.model.modules() if isinstance(module, torch.nn.Linear)]
    drawn = [module for module in fresh.model.modules() if isinstance(module, torch.nn.Linear)]
    assert torch.equal(linears[1].weight, drawn[1].weight)  # (6, 6) of (6, 12): another layer, drawn anew
