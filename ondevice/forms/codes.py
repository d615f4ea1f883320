"""Rows as codes: each cell of a few dimensions ends as one byte, an index into a codebook that many rows share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ondevice.forms.base import Codes
from ondevice.forms.codebook import (
    NUM_CODES,
    choose_codes,
    decoded,
    fit_codebook,
    joined,
    nearest_codes,
    spread,
)
from ondevice.forms.rows import gather_rows, lookup
from ondevice.forms.sizes import RetrainedEmbedding
from ondevice.forms.table import TableInfo

REFRESH_EVERY = 10  # steps between assignments of codes to the nearest entries
COMMITMENT = 0.25


class CodedEmbedding(RetrainedEmbedding):
    """A table under sizes whose values are first trained freely, then as codes.

    From `begin_codes` on, the cell c of a row is e_c = B[code_c], an entry of the codebook B, and training moves the
    entries that are looked up. Which entry a cell has is decided in one of two ways:

    - ``straight_through``: the entry nearest to the row's free values x_c, which gradients reach as if e were x; the
      commitment β·‖x − sg(e)‖² keeps the two together (VQ-VAE, arXiv 1711.00937, equation 3);
    - else by what it does to the loss: `choose`, between epochs (`training.codes`). Free values are then done with.

    Product quantization of embeddings as in DPQ and MGQE (arXiv 1908.09756, 2002.08530), with three departures: sizes
    say how many cells a row has; all cells share one codebook, 1 kB of a program at four dimensions a cell; and
    the rows of the largest sizes say each dimension twice, the second time with entries a quarter as large
    (`codebook.joined`). Entry 0 stays zero: it is every cell beyond a row's size.

    Args:
        info: field offsets and training counts.
        form: sizes in multiples of its ``code_dims``.
        initial: initial free values (N, D); None to draw.
        init_std: as in `EmbeddingMethod`.

    Shape: ids (B, F) int64 -> (B, F, D) float32; codes (N, K) uint8, K = levels · D / code_dims; codebook
    (256, code_dims).
    """

    codes: Tensor
    cells: Tensor
    """Which cells each row stores, (N, K) bool."""
    is_coded: Tensor
    straight_through: bool = True
    is_turned: bool = False
    """Whether the free values begin with axes turned to what codes are good at."""

    def __init__(
        self, info: TableInfo, form: Codes, *, initial: Tensor | None = None, init_std: float | None = None
    ) -> None:
        super().__init__(info, form, initial=initial, init_std=init_std)
        self.code_dims = form.code_dims
        self.register_buffer("cells", form.cells(), persistent=False)
        self.register_buffer("codes", torch.zeros_like(self.cells, dtype=torch.uint8))
        self.register_buffer("is_coded", torch.tensor(False))
        self.codebook = nn.Parameter(torch.zeros(NUM_CODES, form.code_dims))
        self.codebook.register_hook(_without_first)
        self._commitment: Tensor | None = None

    @property
    def is_final(self) -> bool:
        return bool(self.is_coded)

    @torch.no_grad()
    def set_codes(self, codes: Tensor, codebook: Tensor) -> None:
        """Take finished codes, (N, K) uint8, and their codebook."""
        self.codes.copy_(codes)
        self.codebook.copy_(codebook)
        self.weight.copy_(self.decoded())
        self.is_coded.fill_(True)

    def stored(self) -> tuple[Tensor, Tensor]:
        """Rows that store something (R,), and which of their cells (R, K) bool."""
        rows = self.cells[:, 0].nonzero().squeeze(1)
        return rows, self.cells[rows]

    @torch.no_grad()
    def spread(self) -> Tensor:
        """A rotation (D, D) of the free values that gives each cell a like share of their variance."""
        rows, _ = self.stored()
        return spread(self.weight[rows], self.occurrences(rows), self.code_dims)

    @torch.no_grad()
    def lost_by(self, rotation: Tensor) -> float:
        """Share of the values' variance that a rotation moves beyond the sizes of their rows, in [0, 1]."""
        rows, _ = self.stored()
        weight = self.occurrences(rows)[:, None]
        turned = (self.weight[rows] @ rotation).square() * weight
        return float((turned * ~self.keep[rows]).sum() / turned.sum().clamp(min=1e-30))

    @torch.no_grad()
    def turn(self, rotation: Tensor) -> None:
        """Rotate the free values; what leaves a row's size by that is lost."""
        self.weight.copy_(self.weight @ rotation * self.keep)

    @torch.no_grad()
    def begin_codes(self, curvature: Tensor | None = None) -> None:
        """Fit codebook and codes to the free values, once and for all.

        Args:
            curvature: of the loss by each stored row's values; None to count each cell by the root of its row's
                occurrences.

        Shape: curvature (R, D, D) in the order of `stored`.
        """
        rows, kept = self.stored()
        codes, codebook = fit_codebook(
            self.weight[rows], kept, self.occurrences(rows), self.code_dims, curvature
        )
        self.codes[rows] = codes.to(torch.uint8)
        self.codebook.copy_(codebook)
        self.is_coded.fill_(True)

    @torch.no_grad()
    def refresh_codes(self) -> None:
        """Give every stored cell its nearest entry."""
        rows, kept = self.stored()
        self.codes[rows] = nearest_codes(self.weight[rows], kept, self.codebook).to(torch.uint8)

    def occurrences(self, rows: Tensor) -> Tensor:
        """What a cell of some rows counts where curvatures are not known: the root of a row's training count."""
        return self.info.counts.to(rows.device)[rows].clamp(min=1).sqrt()

    @torch.no_grad()
    def choose(self, rows: Tensor, wanted: Tensor, curvature: Tensor) -> None:
        """Give some stored rows the codes that come nearest to what is wanted, as the loss sees it.

        Shape: rows (R,) int64, wanted (R, D), curvature (R, D, D).
        """
        codes = choose_codes(wanted, curvature, self.cells[rows], self.codes[rows].long(), self.codebook)
        self.codes[rows] = codes.to(torch.uint8)

    def decoded(self, rows: Tensor | None = None) -> Tensor:
        """Values of all rows, or of some, as their codes say: (…,) -> (…, D)."""
        codes = self.codes if rows is None else self.codes[rows]
        return decoded(codes.long(), self.codebook, self.embedding_dim)

    def step_end(self, step: int) -> None:
        if self.straight_through and self.is_coded and step % REFRESH_EVERY == 0:
            self.refresh_codes()

    def train(self, mode: bool = True) -> CodedEmbedding:
        """Evaluation reads codes that fit the weights as they are then, averaged ones for instance."""
        if not mode and self.training and self.is_coded and self.straight_through:
            self.refresh_codes()
        super().train(mode)
        return self

    def of_rows(self, rows: Tensor, inverse: Tensor, *values: Tensor) -> Tensor:
        if not self.is_coded:
            return super().of_rows(rows, inverse, *values)
        kept = self.in_effect.index_select(0, rows)
        coded = joined(lookup(self.codebook, self.codes[rows].long()).flatten(1), self.embedding_dim)
        if self.level is not None:
            coded = coded * kept
        if self.straight_through:
            free = values[0] * kept
            self._commitment = (free - coded.detach()).square().sum() / inverse.shape[0]
            coded = coded + (free - free.detach())
        return lookup(coded, inverse)

    def of_ids(self, ids: Tensor) -> Tensor:
        if not self.is_coded:
            return super().of_ids(ids)
        if not self.training:
            found = self.decoded(ids)
            return found if self.level is None else found * self.level[ids]
        rows, inverse = self.info.distinct(ids)
        return self.of_rows(rows, inverse, gather_rows(self.weight, rows))

    def regularization(self) -> Tensor | None:
        if self._commitment is None:
            return None
        penalty, self._commitment = COMMITMENT * self._commitment, None
        return penalty

    def table(self) -> Tensor:
        return self.decoded().detach() * self.in_effect if self.is_coded else super().table()

    def compact(self, target: int | None = None) -> Codes:
        """The form the table was made with, at its own width."""
        return Codes(self.cells.sum(1).cpu() * self.code_dims, self.embedding_dim, self.code_dims)

    def num_kept(self) -> int:
        return int(self.cells.sum()) * self.code_dims if self.level is None else int(self.level.sum())


def _without_first(gradient: Tensor) -> Tensor:
    gradient = gradient.clone()
    gradient[0] = 0
    return gradient
