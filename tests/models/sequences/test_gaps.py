"""What a model of a history makes of time gaps: as much of the future as of items, none; and each of them counts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ondevice.data.gaps import NUM_BUCKETS
from ondevice.models.sequences import SEQUENCE_MODELS, SequenceModel
from ondevice.models.sequences.decayed_pooling import DecayedPooling

LAST, DIM = 6, 8
NAMES = list(SEQUENCE_MODELS)


def model(name: str, **options: int) -> SequenceModel:
    made = SEQUENCE_MODELS[name](DIM, last=LAST, gaps=True, **options)
    with torch.no_grad():
        for vectors in made.parameters():
            vectors.add_(torch.randn_like(vectors), alpha=0.3)
    return made.eval()


def histories(lengths: tuple[int, ...] = (6, 3, 1, 0)) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, which places are present, and gaps."""
    present = torch.stack([torch.arange(LAST) >= LAST - length for length in lengths])
    return torch.randn(len(lengths), LAST, DIM), present, torch.randint(1, NUM_BUCKETS, present.shape)


@pytest.mark.parametrize("name", NAMES)
def test_later_gaps_change_nothing_and_earlier_ones_count(name: str) -> None:
    made, (embeddings, present, gaps) = model(name), histories()
    before, changed = made(embeddings, present, gaps), gaps.clone()
    changed[:, 4:] = 1 + gaps[:, 4:] % (NUM_BUCKETS - 1)
    after = made(embeddings, present, changed)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[0, 4:], before[0, 4:])


@pytest.mark.parametrize("name", NAMES)
def test_gaps_of_absent_places_and_of_nobody_change_nothing(name: str) -> None:
    made, (embeddings, present, gaps) = model(name), histories()
    others = torch.where(present, gaps, torch.randint(0, NUM_BUCKETS, gaps.shape))
    before, after = made(embeddings, present, gaps), made(embeddings, present, others)
    torch.testing.assert_close(after[present], before[present])
    torch.testing.assert_close(made.newest(embeddings, present, others), before[:, -1])


@pytest.mark.parametrize("name", NAMES)
def test_a_new_model_reads_no_gap_and_learns_each(name: str) -> None:
    made, (embeddings, present, gaps) = SEQUENCE_MODELS[name](DIM, last=LAST, gaps=True).eval(), histories()
    torch.testing.assert_close(made(embeddings, present, gaps), made(embeddings, present))
    made(embeddings, present, gaps)[present].square().sum().backward()
    assert made.gaps is not None
    learnt = made.gaps.weight.grad.abs().sum(1) > 0
    expected = torch.bincount(gaps[present], minlength=NUM_BUCKETS) > 0
    assert learnt.tolist() == expected.tolist()
    assert not learnt[0]


@pytest.mark.parametrize("name", NAMES)
def test_compacted_is_the_same_model(name: str) -> None:
    made, (embeddings, present, gaps) = model(name), histories()
    gaps[0, 2] = 0  # of a place whose gap is not known
    compacted = made.compacted()
    torch.testing.assert_close(
        compacted.newest(embeddings, present, gaps), made.newest(embeddings, present, gaps)
    )
    assert next(table.num_values() for table in compacted.packed_tables()) == NUM_BUCKETS * DIM


def test_gaps_have_the_width_of_the_model() -> None:
    made, (embeddings, present, gaps) = model("decayed_pooling", width=12), histories()
    assert made.gaps is not None
    assert made.gaps.weight.shape == (NUM_BUCKETS, 12)
    assert made(embeddings, present, gaps).shape == embeddings.shape


def test_a_step_reads_the_gap_of_its_item() -> None:
    made, (embeddings, present, gaps) = model("decayed_pooling"), histories((6,))
    assert isinstance(made, DecayedPooling)
    state = torch.zeros(1, DIM)
    for place, expected in enumerate(made(embeddings, present, gaps)[0]):
        state, user = made.step(state, embeddings[:, place], gaps[:, place])
        torch.testing.assert_close(user[0], expected, rtol=1e-4, atol=1e-5)
