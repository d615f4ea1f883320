"""The shared layers and the three architectures by hand and against independent formulas."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import nn

from ondevice.models.autoint import AutoInt, InteractingLayer
from ondevice.models.base import History
from ondevice.models.deepfm import DeepFM
from ondevice.models.din import TargetAttention
from ondevice.models.fm import FM
from ondevice.models.layers import DNN, FlatInputs, fold_batch_norm, second_order


def test_second_order_by_hand() -> None:
    """(1, 2)·(3, 4) + (1, 2)·(5, 6) + (3, 4)·(5, 6) = 11 + 17 + 39."""
    embeddings = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    assert second_order(embeddings).tolist() == [67.0]
    assert second_order(embeddings.requires_grad_()).tolist() == [67.0]
    assert FM(3, 2)(embeddings).tolist() == [67.0]


def test_second_order_is_all_pairs_with_or_without_a_gradient() -> None:
    embeddings = torch.randn(20, 5, 3, dtype=torch.float64, requires_grad=True)
    pairs = sum((embeddings[:, i] * embeddings[:, j]).sum(1) for i, j in combinations(range(5), 2))
    torch.testing.assert_close(second_order(embeddings), pairs)
    torch.testing.assert_close(second_order(embeddings.detach()), pairs.detach())
    upstream = torch.randn(20, dtype=torch.float64)
    ours = torch.autograd.grad(second_order(embeddings), embeddings, upstream)
    theirs = torch.autograd.grad(pairs, embeddings, upstream)
    torch.testing.assert_close(ours, theirs)


def test_second_order_equals_finite_differences() -> None:
    embeddings = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(second_order, (embeddings,))


def test_dnn_by_hand() -> None:
    """Hidden relu(1·2 + 1·3) = 5 and relu(−1·2 + 0·3) = 0; output 10·5 + 100·0 + 1."""
    dnn = DNN(2, (2,), dropout=0.0, batch_norm=False)
    assert [type(layer) for layer in dnn.layers] == [nn.Linear, nn.ReLU, nn.Linear]
    with torch.no_grad():
        dnn.layers[0].weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, 0.0]]))
        dnn.layers[0].bias.zero_()
        dnn.layers[2].weight.copy_(torch.tensor([[10.0, 100.0]]))
        dnn.layers[2].bias.fill_(1.0)
    assert dnn(torch.tensor([[2.0, 3.0]])).tolist() == [51.0]


def test_dnn_has_its_layers_in_order() -> None:
    block = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout]
    dnn = DNN(6, (5, 4), dropout=0.3, batch_norm=True)
    assert [type(layer) for layer in dnn.layers] == [*block, *block, nn.Linear]
    assert [type(layer) for layer in dnn.folded().layers] == [nn.Linear, nn.ReLU] * 2 + [nn.Linear]
    assert dnn.layers[3].p == 0.3


@pytest.mark.parametrize("affine", [True, False])
def test_a_folded_batch_norm_is_the_same_function(affine: bool) -> None:
    linear, norm = nn.Linear(6, 4), nn.BatchNorm1d(4, affine=affine)
    if affine:
        nn.init.uniform_(norm.weight, -2, 2)
        nn.init.uniform_(norm.bias, -2, 2)
    for _ in range(20):
        norm(linear(torch.randn(64, 6) * 2 + 1))
    norm.eval()
    inputs = torch.randn(100, 6)
    torch.testing.assert_close(
        fold_batch_norm(linear, norm)(inputs), norm(linear(inputs)), rtol=1e-5, atol=1e-5
    )


def test_flat_inputs_leave_out_columns_that_are_always_zero() -> None:
    embeddings = torch.arange(6.0).reshape(1, 2, 3)
    assert FlatInputs(2, 3)(embeddings).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert FlatInputs(2, 3, [1, 2])(embeddings).tolist() == [[0, 3, 4]]
    assert "columns" not in FlatInputs(2, 3, [1, 2]).state_dict()


def test_deepfm_is_fm_plus_dnn() -> None:
    model, embeddings = DeepFM(3, 4).eval(), torch.randn(7, 3, 4)
    expected = second_order(embeddings) + model.dnn(embeddings.reshape(7, 12))
    torch.testing.assert_close(model(embeddings), expected)


def test_attention_equals_the_paper_written_out() -> None:
    """Equations 5 to 8 of AutoInt, head by head, with no scaling."""
    layer, fields = InteractingLayer(4, num_heads=2, head_dim=3), torch.randn(5, 6, 4)
    query, key, value = (
        p.weight.reshape(2, 3, 4) for p in (layer.query, layer.key, layer.value)
    )  # (H, A, in)
    score = torch.einsum("bmi,hai,hac,bkc->bhmk", fields, query, key, fields)
    weights = score.exp() / score.exp().sum(-1, keepdim=True)
    heads = torch.einsum("bhmk,hai,bki->bmha", weights, value, fields)
    expected = torch.relu(heads.reshape(5, 6, 6) + fields @ layer.residual.weight.T)
    torch.testing.assert_close(layer(fields), expected, rtol=1e-4, atol=1e-5)


def test_autoint_stacks_layers_beside_a_dnn() -> None:
    model, embeddings = AutoInt(3, 4, num_layers=2, num_heads=2, head_dim=5).eval(), torch.randn(7, 3, 4)
    attended = model.layers[1](model.layers[0](embeddings))
    assert attended.shape == (7, 3, 10)
    expected = model.output(attended.reshape(7, 30)).squeeze(1) + model.dnn(embeddings.reshape(7, 12))
    torch.testing.assert_close(model(embeddings), expected)


def test_autoint_can_do_without_the_dnn() -> None:
    model, embeddings = AutoInt(3, 4, hidden=()).eval(), torch.randn(7, 3, 4)
    assert model.dnn is None
    torch.testing.assert_close(
        model(embeddings), model.output(model.layers(embeddings).flatten(1)).squeeze(1)
    )
    assert model.compacted([1, 1, 1]) is model


def test_target_attention_by_hand() -> None:
    """A unit without a hidden layer that reads h ⊙ t alone: ⟨h, t⟩·h, summed, not normalized."""
    attention = TargetAttention(2, ())
    with torch.no_grad():
        attention.network.first.weight.copy_(torch.tensor([[0.0] * 6 + [1.0, 1.0]]))
        attention.network.first.bias.zero_()
    history = History(torch.tensor([[[0.0, 0.0], [1.0, 2.0], [3.0, 0.0]]]), torch.tensor([[0.0, 1.0, 1.0]]))
    item = torch.tensor([[[2.0, 1.0]]])
    assert attention(history, item).tolist() == [[[4 * 1.0 + 6 * 3.0, 4 * 2.0 + 0.0]]]
