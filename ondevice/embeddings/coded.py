"""Rows as codes: each cell of a few dimensions ends as one byte, an index into a codebook that all rows share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ondevice.embeddings.base import TableInfo
from ondevice.embeddings.forms import Codes
from ondevice.embeddings.retrained import RetrainedEmbedding
from ondevice.embeddings.rows import gather_rows, lookup

NUM_CODES = 256
REFRESH_EVERY = 10  # steps between assignments of codes
COMMITMENT = 0.25
MAX_DISTANCES = 1 << 24  # distances computed at once


class CodedEmbedding(RetrainedEmbedding):
    """A table under sizes whose values are first trained freely, then as codes.

    From `begin_codes` on, the cell c of a row is e_c = B[code_c], the entry of the codebook B nearest to the row's
    free values x_c. Gradients reach x as if e were x (straight through), and the entries by what looked them up;
    the commitment β·‖x − sg(e)‖² keeps the two together. Vector quantization as in DPQ and MGQE (arXiv 1908.09756,
    2002.08530) and VQ-VAE (arXiv 1711.00937, equation 3), with two departures: sizes say how many cells a row has,
    and all cells share one codebook, which is 1 kB of a program at four dimensions a cell. Entry 0 stays zero: it
    is every cell beyond a row's size.

    Args:
        info: field offsets and training counts.
        form: sizes in multiples of its ``code_dims``.
        initial: initial free values (N, D); None to draw.
        init_std: as in `EmbeddingMethod`.

    Shape: ids (B, F) int64 -> (B, F, D) float32; codes (N, D / code_dims) uint8; codebook (256, code_dims).
    """

    codes: Tensor
    is_coded: Tensor

    def __init__(
        self, info: TableInfo, form: Codes, *, initial: Tensor | None = None, init_std: float | None = None
    ) -> None:
        super().__init__(info, form, initial=initial, init_std=init_std)
        self.code_dims = form.code_dims
        self.register_buffer(
            "codes", torch.zeros(info.num_embeddings, self.embedding_dim // form.code_dims, dtype=torch.uint8)
        )
        self.register_buffer("is_coded", torch.tensor(False))
        self.codebook = nn.Parameter(torch.zeros(NUM_CODES, form.code_dims))
        self.codebook.register_hook(_without_first)
        self._commitment: Tensor | None = None

    @property
    def is_final(self) -> bool:
        return bool(self.is_coded)

    @torch.no_grad()
    def set_codes(self, codes: Tensor, codebook: Tensor) -> None:
        """Take finished codes, (N, D / code_dims) uint8, and their codebook."""
        self.codes.copy_(codes)
        self.codebook.copy_(codebook)
        self.weight.copy_(self._decoded())
        self.is_coded.fill_(True)

    @torch.no_grad()
    def begin_codes(self) -> None:
        """Fit the codebook to the free values, each cell weighted by the root of its row's occurrences."""
        rows, kept = self._stored()
        cells = self.weight[rows].unflatten(1, (-1, self.code_dims))[kept]
        weight = self.info.counts.to(cells.device)[rows].clamp(min=1).sqrt()[:, None].expand_as(kept)[kept]
        self.codebook[1:] = k_means(cells, weight, NUM_CODES - 1)
        self.is_coded.fill_(True)
        self.refresh_codes()

    @torch.no_grad()
    def refresh_codes(self) -> None:
        """Give every stored cell its nearest entry."""
        rows, kept = self._stored()
        for part, keep in zip(*(t.split(MAX_DISTANCES // NUM_CODES) for t in (rows, kept)), strict=True):
            cells = self.weight[part].unflatten(1, (-1, self.code_dims))
            distance = self.codebook.square().sum(1) - 2 * (cells @ self.codebook.t())
            self.codes[part] = (distance.argmin(-1) * keep).to(torch.uint8)

    def _stored(self) -> tuple[Tensor, Tensor]:
        """Rows that store something, and which of their cells, (R,) and (R, C)."""
        kept = self.keep[:, :: self.code_dims]
        rows = kept[:, 0].nonzero().squeeze(1)
        return rows, kept[rows]

    def _decoded(self) -> Tensor:
        return F.embedding(self.codes.int(), self.codebook).flatten(1)

    def step_end(self, step: int) -> None:
        if self.is_coded and step % REFRESH_EVERY == 0:
            self.refresh_codes()

    def train(self, mode: bool = True) -> CodedEmbedding:
        """Evaluation reads codes that fit the weights as they are then, averaged ones for instance."""
        if not mode and self.training and self.is_coded:
            self.refresh_codes()
        super().train(mode)
        return self

    def of_rows(self, rows: Tensor, inverse: Tensor, *values: Tensor) -> Tensor:
        if not self.is_coded:
            return super().of_rows(rows, inverse, *values)
        kept = self.in_effect.index_select(0, rows)
        free = values[0] * kept
        coded = lookup(self.codebook, self.codes[rows].long()).flatten(1)
        if self.level is not None:
            coded = coded * kept
        self._commitment = (free - coded.detach()).square().sum() / inverse.shape[0]
        return lookup(coded + (free - free.detach()), inverse)

    def of_ids(self, ids: Tensor) -> Tensor:
        if not self.is_coded:
            return super().of_ids(ids)
        if not self.training:
            found = F.embedding(self.codes[ids].int(), self.codebook).flatten(-2)
            return found if self.level is None else found * self.level[ids]
        rows, inverse = self.info.distinct(ids)
        return self.of_rows(rows, inverse, gather_rows(self.weight, rows))

    def regularization(self) -> Tensor | None:
        if self._commitment is None:
            return None
        penalty, self._commitment = COMMITMENT * self._commitment, None
        return penalty

    def table(self) -> Tensor:
        return self._decoded().detach() * self.in_effect if self.is_coded else super().table()

    def compact(self, target: int | None = None) -> Codes:
        """The form the table was made with, at its own width."""
        return Codes(self.keep.sum(1).cpu(), self.embedding_dim, self.code_dims)


def _without_first(gradient: Tensor) -> Tensor:
    gradient = gradient.clone()
    gradient[0] = 0
    return gradient


def k_means(points: Tensor, weight: Tensor, num_centers: int, rounds: int = 20) -> Tensor:
    """Centers that minimize the weighted squared distance to the nearest one (Lloyd's algorithm).

    Seeded by weighted draws from PyTorch's own generator. With fewer points than centers the rest is zero.

    Shape: points (P, W), weight (P,) -> (num_centers, W).
    """
    centers = points.new_zeros(num_centers, points.shape[1])
    if not len(points):
        return centers
    chosen = torch.multinomial(weight.float().cpu(), min(num_centers, len(points)))
    centers[: len(chosen)] = points[chosen.to(points.device)]
    for _ in range(rounds):
        distance = centers.square().sum(1) - 2 * (points @ centers.t())
        nearest = distance.argmin(1)
        total = torch.zeros_like(centers).index_add_(0, nearest, points * weight[:, None])
        mass = weight.new_zeros(num_centers).index_add_(0, nearest, weight)
        centers = torch.where(mass[:, None] > 0, total / mass[:, None].clamp(min=1e-12), centers)
    return centers
