"""What every model of a history must do, and what one of them says by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ondevice.models.sequences import SEQUENCE_MODELS, SequenceModel
from ondevice.models.sequences.decayed_pooling import DecayedPooling
from ondevice.models.sequences.sasrec import SASRec

LAST, DIM = 6, 8
NAMES = list(SEQUENCE_MODELS)


def model(name: str, training: bool = False) -> SequenceModel:
    made = SEQUENCE_MODELS[name](DIM, last=LAST)
    with torch.no_grad():
        made.nobody.normal_()
    return made.train(training)


def histories(lengths: tuple[int, ...] = (6, 3, 1, 0)) -> tuple[Tensor, Tensor]:
    """Embeddings, and which places are present: the last ones of each history."""
    places = torch.arange(LAST)
    return torch.randn(len(lengths), LAST, DIM), torch.stack([places >= LAST - length for length in lengths])


@pytest.mark.parametrize("name", NAMES)
def test_shapes(name: str) -> None:
    embeddings, present = histories()
    vectors = model(name)(embeddings, present)
    assert vectors.shape == embeddings.shape
    assert bool(torch.isfinite(vectors).all())


@pytest.mark.parametrize("name", NAMES)
def test_the_future_changes_nothing(name: str) -> None:
    embeddings, present = histories()
    made = model(name)
    before = made(embeddings, present)
    changed = embeddings.clone()
    changed[:, 4:] = torch.randn_like(changed[:, 4:]) * 10
    after = made(changed, present)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[0, 4:], before[0, 4:])


@pytest.mark.parametrize("name", NAMES)
def test_every_place_up_to_now_counts(name: str) -> None:
    embeddings, present = histories((6,))
    embeddings.requires_grad_()
    model(name)(embeddings, present)[0, 4].square().sum().backward()
    assert embeddings.grad is not None
    assert (embeddings.grad[0].abs().sum(-1) > 0).tolist() == [True] * 5 + [False]


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name: str) -> None:
    """What stands in absent places; and how many of them there are, which a shorter history shows."""
    embeddings, present = histories()
    made = model(name)
    before = made(embeddings, present)
    other = torch.where(present[..., None], embeddings, torch.full_like(embeddings, 7.0))
    torch.testing.assert_close(made(other, present), before)
    torch.testing.assert_close(made(embeddings[1:2, 3:], present[1:2, 3:]), before[1:2, 3:])


@pytest.mark.parametrize("name", NAMES)
def test_nobody_has_a_vector_of_its_own(name: str) -> None:
    embeddings, present = histories()
    made = model(name)
    vectors = made(embeddings, present)
    assert torch.equal(vectors[~present], made.nobody.expand(int((~present).sum()), DIM))
    assert torch.equal(made.newest(embeddings, present)[3], made.nobody)


@pytest.mark.parametrize("name", NAMES)
def test_the_newest_is_the_last(name: str) -> None:
    embeddings, present = histories()
    made = model(name)
    torch.testing.assert_close(made.newest(embeddings, present), made(embeddings, present)[:, -1])


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    embeddings, present = histories()
    made = model(name, training=True)
    (made(embeddings, present) * torch.randn_like(embeddings)).sum().backward()
    for parameter, value in made.named_parameters():
        assert value.grad is not None, parameter
        assert bool(torch.isfinite(value.grad).all()), parameter
        assert bool(value.grad.any()), parameter


@pytest.mark.parametrize("name", NAMES)
def test_a_state_comes_back(name: str) -> None:
    one, other = model(name), model(name)
    embeddings, present = histories()
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(embeddings, present), other(embeddings, present))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_compacted_is_equal(name: str) -> None:
    embeddings, present = histories()
    made = model(name)
    compact = made.compacted()
    torch.testing.assert_close(compact.newest(embeddings, present), made.newest(embeddings, present))
    assert not any(isinstance(module, torch.nn.LayerNorm) for module in compact.modules())


@pytest.mark.parametrize("name", NAMES)
def test_exportable(name: str) -> None:
    class Newest(torch.nn.Module):
        def __init__(self, inner: SequenceModel) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, embeddings: Tensor, present: Tensor) -> Tensor:
            return self.inner.newest(embeddings, present)

    embeddings, present = histories()
    made = Newest(model(name).compacted())
    for length in (6, 3, 0):
        is_present = torch.arange(LAST)[None] >= LAST - length
        program = torch.export.export(made, (embeddings[:1], present[:1])).module()
        torch.testing.assert_close(program(embeddings[:1], is_present), made(embeddings[:1], is_present))


@pytest.mark.parametrize("name", NAMES)
def test_a_history_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="last must be at least 1, got 0"):
        SEQUENCE_MODELS[name](DIM, last=0)


def test_a_step_for_each_tap_is_the_same_as_all_at_once() -> None:
    made = DecayedPooling(DIM, last=LAST).eval()
    embeddings, present = histories((6, 6, 4))
    at_once = made(embeddings, present)
    for row in range(3):
        state = torch.zeros(1, DIM)
        for place in torch.nonzero(present[row])[:, 0]:
            state, vector = made.step(state, embeddings[row : row + 1, place])
            torch.testing.assert_close(vector[0], at_once[row, place])


def test_a_pooled_history_by_hand() -> None:
    """a = 1/2: of the items 1, 2, 4 stays 0.5, 1.25, 2.625."""
    made = DecayedPooling(2, last=3)
    with torch.no_grad():
        made.decay.zero_()
    items = torch.tensor([1.0, 2.0, 4.0])[None, :, None].expand(1, 3, 2)
    assert made._pooled(items, 3)[0, :, 0].tolist() == pytest.approx([0.5, 1.25, 2.625])


@pytest.mark.parametrize("decay", [-40.0, 40.0])
def test_extreme_decays_stay_finite(decay: float) -> None:
    made = DecayedPooling(DIM, last=200)
    with torch.no_grad():
        made.decay.fill_(decay)
    vectors = made(torch.randn(1, 200, DIM), torch.ones(1, 200, dtype=torch.bool))
    vectors.sum().backward()
    assert bool(torch.isfinite(vectors).all())
    assert made.decay.grad is not None
    assert bool(torch.isfinite(made.decay.grad).all())


def test_heads_divide_the_dimension() -> None:
    with pytest.raises(ValueError, match=r"embedding\.dim must be a multiple of num_heads, got 8 and 3"):
        SASRec(DIM, num_heads=3)


def test_a_width_as_large_as_the_embedding_begins_as_none() -> None:
    """So that a dense model's weights can be gone on with."""
    plain = model("decayed_pooling")
    wide = DecayedPooling(DIM, last=LAST, width=DIM, hidden=16).eval()
    wide.load_state_dict(plain.state_dict(), strict=False)
    embeddings, present = histories()
    torch.testing.assert_close(wide(embeddings, present), plain(embeddings, present))


@pytest.mark.parametrize("name", NAMES)
def test_the_last_bias_is_added_to_every_vector(name: str) -> None:
    embeddings, present = histories()
    made, shift = model(name), torch.randn(DIM)
    before = made(embeddings, present)
    with torch.no_grad():
        made.last_bias().add_(shift)
    torch.testing.assert_close(
        made(embeddings, present)[present], before[present] + shift, rtol=1e-4, atol=1e-5
    )
