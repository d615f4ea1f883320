"""Rows as codes: each cell of a few dimensions is one byte, an index into a codebook that many rows share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ondevice.errors import DamagedFile
from ondevice.forms.base import FORMS, CompactTable, Form
from ondevice.forms.blocks import Blocks, choose_blocks, columns_bytes
from ondevice.forms.codebook import (
    NUM_CODES,
    choose_codes,
    decoded,
    fit_codebook,
    joined,
    nearest_codes,
    spread,
)
from ondevice.forms.coded_staircase import CodedStaircase, adds_by_level
from ondevice.forms.packed import PackedTable
from ondevice.forms.rows import gather_rows, lookup
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import EmbeddingTable, TableInfo

MAX_LEVELS = 2
"""Residual levels that a row of codes may have."""
REFRESH_EVERY = 10  # steps between assignments of codes to the nearest entries
COMMITMENT = 0.25
CODES_BYTES = {"forward": 40, "rank": 95, "recommend": 100}
"""Of a program, by endpoint: the lookup of codes; forward saves the scales of dimensions."""
BY_LEVEL_BYTES = {"forward": 830, "rank": 300, "recommend": 300}
"""Looking levels up one by one."""
LEVELS_BYTES = {"forward": 260, "rank": 20, "recommend": 20}
"""Adding up levels, beside the weights of the product that does it."""


@FORMS.register("codes")
@dataclass(frozen=True)
class Codes(Sizes):
    """Sizes whose cells of ``code_dims`` dimensions are stored as one byte each.

    A size above ``dim`` is that of a row whose leading dimensions are refined: its cells from dim / code_dims on
    store what the cells from the first on leave (residual quantization).

    Args:
        sizes: stored values per row, each in [0, `MAX_LEVELS` · dim], a cell counted as ``code_dims`` values.
        code_dims: dimensions per cell; every size is a multiple of it.
    """

    code_dims: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.code_dims < 1 or self.dim % self.code_dims or bool((self.sizes % self.code_dims).any()):
            raise ValueError(f"sizes and dim {self.dim} must be multiples of code_dims {self.code_dims}")

    @property
    def width(self) -> int:
        return self.dim

    def narrowed(self) -> Form:
        return self

    def facts(self) -> dict[str, Any]:
        return {"dim": self.dim, "code_dims": self.code_dims}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Codes:
        if facts.get("books"):
            raise DamagedFile(
                "a model of several codebooks, which is no longer read; train the run again in a new directory"
            )
        return Codes(tensors["sizes"].long(), facts["dim"], facts["code_dims"])

    def without(self, rows: Tensor) -> Codes:
        return Codes(self.sizes.masked_fill(rows, 0), self.dim, self.code_dims)

    def most_values(self) -> int:
        return MAX_LEVELS * self.dim

    @property
    def num_levels(self) -> int:
        """Residual levels of the rows that have most, from 1 to `MAX_LEVELS`."""
        return max(1, -(-int(self.sizes.max()) // self.dim))

    def cells(self) -> Tensor:
        """Which cells each row has, (N, num_levels · dim / code_dims) bool."""
        ends = torch.arange(0, self.num_levels * self.dim, self.code_dims, device=self.sizes.device)
        return ends[None, :] < self.sizes[:, None]

    def within(self, larger: Form) -> Form:
        """Row by row the smaller of two sizes."""
        return coded(torch.minimum(self.sizes, larger.row_sizes()), self.code_dims, self.dim)

    def table(
        self, info: TableInfo, *, initial: Tensor | None = None, init_std: float | None = None
    ) -> CompactTable:
        return CodedEmbedding(info, self, initial=initial, init_std=init_std)

    def blocks(self, num_fields: int) -> Blocks:
        """Columns of whole cells; levels are whole, so that they can be added up."""
        blocks = choose_blocks(
            self.sizes.numpy(), num_fields, width=self.code_dims, value_bytes=1 / self.code_dims
        )
        return dataclasses.replace(blocks, dim=self.num_levels * self.dim) if self.num_levels > 1 else blocks

    def pack(self, table: EmbeddingTable, ids: Tensor) -> PackedTable:
        stored = table.values()
        blocks = self.blocks(table.info.num_fields)
        codes = stored["codes"].cpu()[ids][:, : blocks.num_columns]
        levels = blocks.dim // min(blocks.dim, self.dim)
        heights = blocks.heights(self.sizes.numpy())
        return CodedStaircase(codes, stored["codebook"].cpu(), blocks, heights, levels)

    def padding(self, num_fields: int) -> int:
        return 0  # sizes are whole cells

    def estimate(self, num_fields: int, endpoints: Sequence[str]) -> int:
        blocks = self.blocks(num_fields)
        cells = sum(height + 1 for height in blocks.heights(self.sizes.numpy()))
        stored = cells + NUM_CODES * blocks.width + columns_bytes(blocks, endpoints)
        stored += sum(CODES_BYTES[name] for name in endpoints)
        if adds_by_level(self.num_levels, self.dim):
            stored += sum(BY_LEVEL_BYTES[name] for name in endpoints)
        elif self.num_levels > 1:
            stored += sum(LEVELS_BYTES[name] for name in endpoints) + 4 * self.num_levels * self.dim**2
        return stored


def coded(sizes: Tensor, code_dims: int, max_dim: int, kind: type[Codes] = Codes) -> Codes:
    """Sizes that are multiples of ``code_dims`` as cells of one byte each.

    Args:
        sizes: stored values of each row.
        code_dims: dimensions of a cell.
        max_dim: the largest dimension of a row: what a size is above it refines the row from its first cell on.
        kind: of the codes.

    Shape: sizes (N,) int64.
    """
    widest = -(-max(1, int(sizes.max())) // code_dims) * code_dims
    return kind(sizes, min(widest, max_dim), code_dims)


class CodedEmbedding(CompactTable):
    """A table under sizes whose values are first trained freely, then as codes.

    From `begin_codes` on, the cell c of a row is e_c = B[code_c], an entry of the codebook B, and training moves the
    entries that are looked up. Which entry a cell has is decided in one of two ways:

    - ``straight_through``: the entry nearest to the row's free values x_c, which gradients reach as if e were x; the
      commitment β·‖x − sg(e)‖² keeps the two together (VQ-VAE, arXiv 1711.00937, equation 3);
    - else by what it does to the loss: `choose`, between epochs (`training.codes`). Free values are then done with.

    Product quantization of embeddings as in DPQ and MGQE (arXiv 1908.09756, 2002.08530), with three departures: sizes
    say how many cells a row has; all cells share one codebook, 1 kB of a program at four dimensions a cell; and
    the rows of the largest sizes have a second residual level, whose entries are a quarter as large
    (`codebook.joined`). Entry 0 stays zero: it is every cell beyond a row's size.

    Args:
        info: field offsets and training counts.
        form: sizes in multiples of its ``code_dims``.
        initial: initial free values (N, D); None to draw.
        init_std: as in `CompactTable`.

    Shape: ids (B, F) int64 -> (B, F, D) float32; codes (N, K) uint8, K = levels · D / code_dims; codebook
    (256, code_dims).
    """

    codes: Tensor
    cells: Tensor
    """Which cells each row stores, (N, K) bool."""
    is_coded: Tensor
    learns_codes = True
    straight_through: bool = True
    is_rotated: bool = False
    """Whether the free values begin with axes rotated to what codes are good at."""

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
        self.straight_through = (
            False  # of two levels, the codes nearest to what these decode to may be others
        )

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
        rotated = (self.weight[rows] @ rotation).square() * weight
        return float((rotated * ~self.keep[rows]).sum() / rotated.sum().clamp(min=1e-30))

    @torch.no_grad()
    def rotate(self, rotation: Tensor) -> None:
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
            decoded = self.decoded(ids)
            return decoded if self.level is None else decoded * self.level[ids]
        rows, inverse = self.info.distinct(ids)
        return self.of_rows(rows, inverse, gather_rows(self.weight, rows))

    def regularization(self) -> Tensor | None:
        if self._commitment is None:
            return None
        penalty, self._commitment = COMMITMENT * self._commitment, None
        return penalty

    def table(self) -> Tensor:
        return self.decoded().detach() * self.in_effect if self.is_coded else super().table()

    def values(self) -> dict[str, Tensor]:
        """Codes (N, K) uint8 and their codebook, which are final.

        Raises: RuntimeError: before there are any.
        """
        if not self.is_final:
            raise RuntimeError("the table is stored before its codes were learnt")
        return {"codes": self.codes, "codebook": self.codebook.detach()}

    def load_values(self, tensors: Mapping[str, Tensor]) -> None:
        self.set_codes(tensors["codes"], tensors["codebook"])

    def take_part(self, larger: EmbeddingTable) -> None:
        stored = larger.values()
        codes = stored["codes"][:, : self.codes.shape[1]].cpu() * self.cells
        self.set_codes(codes, stored["codebook"].cpu())

    def num_kept(self) -> int:
        return int(self.cells.sum()) * self.code_dims if self.level is None else int(self.level.sum())


def _without_first(gradient: Tensor) -> Tensor:
    gradient = gradient.clone()
    gradient[0] = 0
    return gradient
