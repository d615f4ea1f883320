"""What every base model must do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ondevice.data.slots import Slots
from ondevice.models import MODELS, BaseModel
from ondevice.models.base import History, make_model

FIELD_DIMS = [4, 2, 2]
SLOTS = Slots((1, 1, 1), (None, "mean", None), (0, 2, 2))
"""Somebody, what they did, and an item."""
every_model = pytest.mark.parametrize("name", MODELS)
reading = pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].reads_histories])


def make(name: str, seed: int = 0, dim: int = 4) -> BaseModel:
    torch.manual_seed(seed)
    return make_model(name, SLOTS, dim, {})


def scored(model: BaseModel, embeddings: Tensor, absent: int = 1) -> Tensor:
    """Logits of embeddings (B, 3, D); for a model of histories the second field's is in one of three places and half of
    it in another, after ``absent`` places that hold nothing.
    """
    if not model.reads_histories:
        return model(embeddings)
    one = embeddings[:, 1]
    values = torch.stack([*[torch.zeros_like(one)] * absent, one, one / 2], 1)
    present = torch.tensor([0.0] * absent + [1, 1]).expand(len(one), -1)
    return model(embeddings[:, [0, 2]], [History(values, present)])


def trained(name: str) -> BaseModel:
    """A model whose batch norms have seen data that is neither centred nor scaled."""
    model = make(name)
    for _ in range(5):
        scored(model, torch.randn(64, 3, 4) * 3 + 1)
    return model.eval()


def used_only(embeddings: Tensor) -> Tensor:
    """Zero from each field's dimension in `FIELD_DIMS` on."""
    return embeddings * (torch.arange(4) < torch.tensor(FIELD_DIMS)[:, None])


@every_model
def test_embeddings_become_logits(name: str) -> None:
    logits = scored(make(name), torch.randn(5, 3, 4))
    assert logits.shape == (5,)
    assert logits.dtype == torch.float32


@every_model
def test_a_rotated_model_gives_of_rotated_embeddings_what_it_gave(name: str) -> None:
    model = trained(name)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4))
    embeddings = torch.randn(20, 3, 4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    expected = scored(model, embeddings).detach()
    rotated = model.rotate(rotation)
    assert rotated == model.can_rotate
    if rotated:
        torch.testing.assert_close(scored(model, embeddings @ rotation), expected, atol=1e-5, rtol=1e-4)
    else:
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@every_model
def test_its_input_layers_are_all_that_narrows(name: str) -> None:
    """The weights of the first dimensions give a model of narrower embeddings, equal where the others are zero."""
    wide, narrow = trained(name), make(name, dim=2).eval()
    state = wide.state_dict()
    names = {id(module): part for part, module in wide.named_modules()}
    for layer in wide.input_layers():
        layer_name = names[id(layer.linear)]
        state |= {f"{layer_name}.{part}": value for part, value in layer.narrowed(4, 2).items()}
    narrow.load_state_dict(state)
    embeddings = torch.randn(20, 3, 2)
    padded = torch.nn.functional.pad(embeddings, (0, 2))
    torch.testing.assert_close(scored(narrow, embeddings), scored(wide, padded), atol=1e-5, rtol=1e-4)


@every_model
def test_every_parameter_and_every_field_gets_a_gradient(name: str) -> None:
    model = make(name)
    embeddings = torch.randn(32, 3, 4, requires_grad=True)
    (scored(model, embeddings) * torch.randn(32)).sum().backward()
    assert bool((embeddings.grad.abs().sum((0, 2)) > 0).all())
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@every_model
def test_a_state_reads_back(name: str) -> None:
    embeddings = torch.randn(5, 3, 4)
    one, other = trained(name), make(name, seed=1).eval()
    other.load_state_dict(one.state_dict())
    assert torch.equal(scored(one, embeddings), scored(other, embeddings))


@every_model
def test_a_seed_decides_the_weights(name: str) -> None:
    embeddings = torch.randn(5, 3, 4)
    assert torch.equal(scored(make(name).eval(), embeddings), scored(make(name).eval(), embeddings))


@every_model
def test_evaluation_does_not_depend_on_the_other_rows(name: str) -> None:
    model, embeddings = trained(name), torch.randn(6, 3, 4)
    torch.testing.assert_close(scored(model, embeddings)[2:3], scored(model, embeddings[2:3]))


@every_model
def test_a_compacted_model_is_equal_where_dimensions_are_zero(name: str) -> None:
    model, embeddings = trained(name), used_only(torch.randn(50, 3, 4) * 3)
    compacted = model.compacted(FIELD_DIMS)
    torch.testing.assert_close(scored(compacted, embeddings), scored(model, embeddings), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(m, (torch.nn.BatchNorm1d, torch.nn.Dropout)) for m in compacted.modules())


@every_model
def test_compacting_leaves_the_model_as_it_was(name: str) -> None:
    model = trained(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    compacted = model.compacted(FIELD_DIMS)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(module.training for module in model.modules())
    assert compacted is model or not compacted.training


@pytest.mark.parametrize("name", ["deepfm", "autoint", "widedeep", "dcn", "din"])
def test_a_compacted_dnn_reads_only_what_is_in_use(name: str) -> None:
    first = trained(name).compacted(FIELD_DIMS).dnn.layers[0]
    assert first.in_features == sum(FIELD_DIMS)
    assert trained(name).compacted([4, 4, 4]).dnn.layers[0].in_features == 12


@reading
def test_padding_changes_nothing(name: str) -> None:
    """How many places are absent before a history."""
    model, embeddings = trained(name), torch.randn(5, 3, 4)
    expected = scored(model, embeddings, absent=0)
    for absent in (1, 30):
        torch.testing.assert_close(scored(model, embeddings, absent), expected)


@reading
def test_an_empty_history_has_logits(name: str) -> None:
    nothing = History(torch.zeros(5, 3, 4), torch.zeros(5, 3))
    assert bool(torch.isfinite(trained(name)(torch.randn(5, 2, 4), [nothing])).all())


@every_model
def test_it_says_what_it_is(name: str) -> None:
    assert MODELS.describe()[name].endswith(".")


def test_a_model_without_a_forward_says_so() -> None:
    with pytest.raises(NotImplementedError, match="BaseModel has no forward"):
        BaseModel(3, 4)(torch.zeros(1, 3, 4))
