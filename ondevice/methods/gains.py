"""What the dimensions of a trained table are worth, measured on the training split: see `Saliency`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ondevice.recommender import Recommender
from ondevice.training.batches import Batches
from ondevice.training.pairs import MadeUpPairs


def measure_gains(
    recommender: Recommender,
    batches: Batches,
    item_columns: tuple[int, ...],
    *,
    num_dims: int,
    pairs: float,
    seed: int = 0,
) -> Tensor:
    """The saliency of each row's leading dimensions, in a basis of each field's own.

    Args:
        recommender: trained; its embeddings are measured, without first-order weights.
        batches: the training split.
        item_columns: of the item-side fields, for made-up pairs.
        num_dims: leading dimensions K to measure.
        pairs: made-up pairs per real row; ignored where all fields are on one side.
        seed: of the pairs.

    Shape: (N, K).
    """
    axes = principal_axes(recommender, batches, item_columns, num_dims=num_dims, pairs=pairs, seed=seed)
    return 0.5 * axes.curvature * axes.coordinates.square()


@dataclass(frozen=True)
class Axes:
    """Each field's own axes, along which its mean curvature is the same, the leading ones first.

    Args:
        directions: of each field, of length 1 in the mean of their squares.
        coordinates: of every row along them.
        curvature: of every row: p·(1 − p)·(b·∂logit/∂e)² along each of its axes b, summed over its lookups.
        lookups: of every row.
        logit_curvature: of every row p·(1 − p), summed over its lookups: that of a first-order weight.

    Shape: directions (F, D, K), coordinates and curvature (N, K), lookups and logit_curvature (N,).
    """

    directions: Tensor
    coordinates: Tensor
    curvature: Tensor
    lookups: Tensor
    logit_curvature: Tensor


def principal_axes(
    recommender: Recommender,
    batches: Batches,
    item_columns: tuple[int, ...],
    *,
    num_dims: int,
    pairs: float,
    seed: int = 0,
) -> Axes:
    """The axes of a trained model, and what is measured along them: arguments as of `measure_gains`."""
    sided = 0 < len(item_columns) < recommender.info.slots.total
    samples = _Samples(recommender.eval(), batches, item_columns, pairs if sided else 0.0, seed)
    directions, coordinates = _rotated(recommender, samples, num_dims)
    lengths = directions.square().sum(1).mean(1).sqrt()
    directions = directions / lengths[:, None, None]
    coordinates = coordinates * lengths[recommender.info.field_of().to(lengths.device), None]
    of_slot = directions[recommender.info.slots.owners]
    curvature = torch.zeros_like(coordinates)
    lookups, logit_curvature = (torch.zeros(len(coordinates), device=lengths.device) for _ in range(2))
    for ids, _, gradients, weight in samples:
        along = torch.einsum("bsd,sdk->bsk", gradients, of_slot).square() * weight[:, None, None]
        curvature.index_add_(0, ids.flatten(), along.flatten(0, 1))
        lookups += torch.bincount(ids.flatten(), minlength=len(lookups))
        logit_curvature.index_add_(0, ids.flatten(), weight[:, None].expand(ids.shape).flatten())
    return Axes(directions, coordinates, curvature, lookups, logit_curvature)


class _Samples:
    """Ids that are read, embeddings, ∂logit/∂e and p·(1 − p) over the training rows and made-up pairs, slot by slot."""

    def __init__(
        self,
        recommender: Recommender,
        batches: Batches,
        item_columns: tuple[int, ...],
        pairs: float,
        seed: int,
    ) -> None:
        self.recommender, self.batches, self.pairs, self.seed = recommender, batches, pairs, seed
        self.made_up = MadeUpPairs(batches, item_columns)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed)
        for ids, _ in self.batches.in_order():
            count = round(self.pairs * len(ids))
            if count:
                ids = torch.cat([ids, self.made_up.draw(count, generator)])
            with torch.no_grad():
                embeddings = self.recommender.read(ids)
            embeddings.requires_grad_()
            logits = self.recommender.logits_of(self.recommender.pooled(embeddings, ids), ids)
            (gradients,) = torch.autograd.grad(logits.sum(), embeddings)
            p = torch.sigmoid(logits.detach())
            yield self.recommender.mapped(ids), embeddings.detach(), gradients, p * (1 - p)


def _rotated(recommender: Recommender, samples: _Samples, width: int) -> tuple[Tensor, Tensor]:
    """Directions (F, D, width) as of `directions_of`, and every row's coordinates (N, width)."""
    weight = recommender.embedding.table()
    fields, dim = recommender.info.num_fields, weight.shape[1]
    curvature = torch.zeros(fields, dim, dim, dtype=torch.float64, device=weight.device)
    second = torch.zeros_like(curvature)
    field_of = torch.tensor(recommender.info.slots.owners, device=weight.device)
    for _, embeddings, gradients, share in samples:
        slots = torch.einsum("bfi,bfj,b->fij", gradients, gradients, share).double()
        curvature.index_add_(0, field_of, slots)
        second.index_add_(0, field_of, torch.einsum("bfi,bfj->fij", embeddings, embeddings).double())
    directions, onto = directions_of(curvature, second, width)
    coordinates = torch.empty(len(weight), onto.shape[2], device=weight.device)
    for field, (begin, end) in enumerate(recommender.info.field_offsets.unfold(0, 2, 1).tolist()):
        coordinates[begin:end] = weight[begin:end] @ onto[field]
    return directions, coordinates


def directions_of(curvature: Tensor, second: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Directions of the most curvature-weighted variance of each field, and what gives a row's coordinates in them.

    With a mean curvature H = R², R symmetric, the directions are R⁻¹·u for the leading eigenvectors u of
    R·E[e·eᵀ]·R: in them one unit costs the same everywhere, and e = Σ z_k·R⁻¹·u_k with z = eᵀ·R·u.

    Shape: curvature and second moments E[e·eᵀ] (F, D, D) float64 -> (F, D, width) float32 each.
    """
    values, vectors = torch.linalg.eigh(curvature)
    values = values.clamp(min=1e-9 * values.amax(1, keepdim=True)).clamp(min=1e-30)
    root = (vectors * values.sqrt()[:, None]) @ vectors.mT
    inverse = (vectors / values.sqrt()[:, None]) @ vectors.mT
    _, rotated = torch.linalg.eigh(root @ second @ root)
    leading = rotated.flip(2)[..., :width]
    directions = (inverse @ leading).float()
    onto = (root @ leading).float()
    return directions, onto
