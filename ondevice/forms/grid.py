"""Rows of plain integers of few bits with one scale for the whole table, several of them a byte.

What quantization-aware training makes of a table (`torchao`'s int4 and int2 weights, but one scale a table: a scale a
row is as large as a row here). A byte of W integers is looked up in all 256 combinations of them, so that a program has
the layout, the operators and the vocabulary of codes, with a codebook that nobody had to learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ondevice.errors import UserError
from ondevice.forms.base import FORMS, CompactTable, Form
from ondevice.forms.codebook import NUM_CODES
from ondevice.forms.codes import Codes
from ondevice.forms.rows import lookup
from ondevice.forms.table import EmbeddingTable, TableInfo

SCALES = 64
"""Scales that are tried when values become integers."""


@FORMS.register("grid")
@dataclass(frozen=True)
class Grid(Codes):
    """Sizes whose values are integers of 8 / ``code_dims`` bits: a byte holds ``code_dims`` of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.code_dims not in (2, 4):
            raise ValueError(f"a byte holds 2 integers of 4 bits or 4 of 2, not {self.code_dims}")

    def most_values(self) -> int:
        return self.dim

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Grid:
        return Grid(tensors["sizes"].long(), facts["dim"], facts["code_dims"])

    def without(self, rows: Tensor) -> Grid:
        return Grid(self.sizes.masked_fill(rows, 0), self.dim, self.code_dims)

    def within(self, larger: Form) -> Form:
        raise UserError(f"a table of {self.kind()} has no smaller versions; set compact.train.elastic=false")

    def table(
        self, info: TableInfo, *, initial: Tensor | None = None, init_std: float | None = None
    ) -> CompactTable:
        return GridEmbedding(info, self, initial=initial, init_std=init_std)


class GridEmbedding(CompactTable):
    """A table under sizes whose values are first trained freely, then rounded as they are read.

    From `begin_codes` on, a value x is read as s·q, q = round(clamp(x / s, −2^(b−1), 2^(b−1) − 1)) of b bits. The
    gradient passes straight through the rounding (STE, arXiv 1308.3432) and reaches the scale s as in LSQ (arXiv
    1902.08153, equation 3). One departure: log s is trained, so that a step changes s by a share of it.

    Args:
        info: field offsets and training counts.
        form: sizes in multiples of its ``code_dims``.
        initial: initial free values (N, D); None to draw.
        init_std: as in `CompactTable`.

    Shape: ids (B, F) int64 -> (B, F, D) float32.
    """

    is_coded: Tensor
    learns_codes = True
    straight_through: bool = True
    """The only way in which integers are chosen."""

    def __init__(
        self, info: TableInfo, form: Grid, *, initial: Tensor | None = None, init_std: float | None = None
    ) -> None:
        super().__init__(info, form, initial=initial, init_std=init_std)
        self.code_dims, self.num_bits = form.code_dims, 8 // form.code_dims
        self.low, self.high = -(1 << self.num_bits - 1), (1 << self.num_bits - 1) - 1
        self.register_buffer("is_coded", torch.tensor(False))
        self.log_scale = nn.Parameter(torch.zeros(()))

    @property
    def is_final(self) -> bool:
        return bool(self.is_coded)

    @torch.no_grad()
    def begin_codes(self) -> None:
        """Take the scale of the least squared error, each row counted by the root of its occurrences."""
        rows = self.keep[:, 0].nonzero().squeeze(1)
        values, kept = self.weight[rows], self.keep[rows]
        weight = kept * self.info.counts.to(rows.device)[rows, None].clamp(min=1).sqrt()
        largest = values.abs().max().clamp(min=1e-12) / self.high
        errors = []
        scales = largest * torch.arange(1, SCALES + 1, device=rows.device) / SCALES
        for scale in scales:
            rounded = (values / scale).round().clamp(self.low, self.high) * scale
            errors.append((weight * (rounded - values).square()).sum())
        self.log_scale.copy_(scales[torch.stack(errors).argmin()].log())
        self.is_coded.fill_(True)

    def rounded(self, values: Tensor) -> Tensor:
        """What is read in place of free values, in any shape."""
        scale = self.log_scale.exp()
        inside = (values / scale).clamp(self.low, self.high)
        return scale * (inside + (inside.round() - inside).detach())

    def of_rows(self, rows: Tensor, inverse: Tensor, *values: Tensor) -> Tensor:
        if not self.is_coded:
            return super().of_rows(rows, inverse, *values)
        return lookup(self.rounded(values[0] * self.in_effect.index_select(0, rows)), inverse)

    def of_ids(self, ids: Tensor) -> Tensor:
        read = super().of_ids(ids)
        return self.rounded(read) if self.is_coded else read

    def table(self) -> Tensor:
        values = super().table()
        return self.rounded(values).detach() if self.is_coded else values

    @torch.no_grad()
    def values(self) -> dict[str, Tensor]:
        """Bytes (N, K) uint8 of ``code_dims`` integers each, the first in the lowest bits; what each byte stands for.

        Raises: RuntimeError: before there are any.
        """
        if not self.is_final:
            raise RuntimeError("the table is stored before its values became integers")
        scale = self.log_scale.exp()
        integers = (self.weight * self.keep / scale).round().clamp(self.low, self.high).long()
        places = torch.arange(self.code_dims, device=integers.device) * self.num_bits
        cells = (integers & (1 << self.num_bits) - 1).unflatten(1, (-1, self.code_dims)) << places
        return {"codes": cells.sum(2).to(torch.uint8), "codebook": self.codebook()}

    @torch.no_grad()
    def codebook(self) -> Tensor:
        """The integers of every byte times the scale, (256, W); those of byte 0 are zero."""
        places = torch.arange(self.code_dims) * self.num_bits
        integers = torch.arange(NUM_CODES)[:, None] >> places & (1 << self.num_bits) - 1
        signed = torch.where(integers > self.high, integers - (1 << self.num_bits), integers)
        return signed.to(self.log_scale) * self.log_scale.exp()

    @torch.no_grad()
    def load_values(self, tensors: Mapping[str, Tensor]) -> None:
        codebook = tensors["codebook"]
        self.weight.copy_(codebook[tensors["codes"].long()].flatten(1))
        self.log_scale.copy_(codebook[1, 0].log())
        self.is_coded.fill_(True)

    def take_part(self, larger: EmbeddingTable) -> None:
        raise NotImplementedError("a table of integers is part of no larger one")
