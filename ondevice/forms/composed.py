"""Composed rows: every row is made of a row of each of two small tables, by quotient and remainder of its number."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ondevice.forms.base import FORMS, CompactTable, Form, RowLayout
from ondevice.forms.packed import PackedTable, dequantized
from ondevice.forms.rows import lookup
from ondevice.forms.table import EmbeddingTable, TableInfo

OPERATIONS = ("mult", "add")
COMPOSED_BYTES = {"forward": 1_770, "rank": 470, "recommend": 480}
"""Of a program, by endpoint: the arithmetic of row numbers, and the second lookup."""


@FORMS.register("composed")
@dataclass(frozen=True)
class Composed(Form):
    """Rows e_n = E₁[n div m] ∘ E₂[n mod m], n counting the stored ids of a field in ascending order from 0.

    Quotient-remainder trick (KDD 2020, arXiv 1909.02107, equation 3), ∘ the product or the sum by value. No two ids of
    a field have both rows in common. A field with m = 1 has a row of E₁ for each id.

    Args:
        stored: which ids have a row.
        field_offsets: first id of each field, and the total.
        modulus: m of each field, at least 1.
        dim: the table's full dimension D.
        size: values of a row, at most D.
        operation: ``mult`` or ``add``.

    Shape: stored (N,) bool, field_offsets (F + 1,) int64, modulus (F,) int64.
    """

    is_shipped_as_selected: ClassVar[bool] = True

    stored: Tensor
    field_offsets: Tensor
    modulus: Tensor
    dim: int
    size: int
    operation: str = "mult"

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS or bool((self.modulus < 1).any()):
            raise ValueError(f"composed rows need a modulus of at least 1 and one of {OPERATIONS}")
        if not 1 <= self.size <= self.dim:
            raise ValueError(f"a row must have from 1 to {self.dim} values, got {self.size}")

    @property
    def width(self) -> int:
        return self.size

    def narrowed(self) -> Form:
        return dataclasses.replace(self, dim=self.size)

    def rows_of_fields(self) -> Tensor:
        """Stored ids of each field, (F,) int64."""
        counts = F.pad(self.stored.long().cumsum(0), (1, 0))[self.field_offsets]
        return counts.diff()

    def quotients(self) -> Tensor:
        """Rows of E₁ of each field, (F,) int64."""
        return (self.rows_of_fields() + self.modulus - 1) // self.modulus

    def starts(self) -> tuple[Tensor, Tensor]:
        """First row of each field in E₁ and in E₂, (F,) int64; row 0 of E₂ leaves a row of E₁ as it is."""
        quotients = F.pad(self.quotients().cumsum(0), (1, 0))[:-1]
        moduli = torch.where(self.modulus > 1, self.modulus, 0)
        remainders = F.pad(moduli.cumsum(0), (1, 0))[:-1] + 1
        return quotients, torch.where(self.modulus > 1, remainders, 0)

    def num_quotients(self) -> int:
        """Rows of E₁."""
        return int(self.quotients().sum())

    def num_remainders(self) -> int:
        """Rows of E₂ that are trained."""
        return int(self.modulus[self.modulus > 1].sum())

    def parts(self) -> tuple[Tensor, Tensor]:
        """Rows of E₁ and E₂ that each id reads, (N,) int64; ids without a row read the one behind the last of E₁."""
        field_of = torch.repeat_interleave(torch.arange(len(self.modulus)), self.field_offsets.diff())
        before = F.pad(self.stored.long().cumsum(0), (1, 0))
        place = before[:-1] - before[self.field_offsets[:-1]][field_of]
        modulus, (quotient_start, remainder_start) = self.modulus[field_of], self.starts()
        quotient = place // modulus
        remainder = place - quotient * modulus
        quotient = torch.where(self.stored, quotient + quotient_start[field_of], self.num_quotients())
        return quotient, torch.where(self.stored, remainder + remainder_start[field_of], 0)

    def num_kept(self) -> int:
        return self.size * (self.num_quotients() + self.num_remainders())

    def row_sizes(self) -> Tensor:
        """Values that each id reads, (N,) int64; several ids read the same."""
        return self.stored.long() * self.size

    def mask(self) -> Tensor:
        return self.stored[:, None] & (torch.arange(self.dim) < self.size)

    def without(self, rows: Tensor) -> Composed:
        left = dataclasses.replace(self, stored=self.stored & ~rows)
        return dataclasses.replace(left, modulus=torch.where(left.rows_of_fields() > 0, self.modulus, 1))

    def facts(self) -> dict[str, Any]:
        return {"dim": self.dim, "size": self.size, "operation": self.operation}

    def tensors(self) -> dict[str, Tensor]:
        return {"stored": self.stored, "field_offsets": self.field_offsets.clone(), "modulus": self.modulus}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Composed:
        parts = tensors["stored"].bool(), tensors["field_offsets"], tensors["modulus"]
        return Composed(*parts, facts["dim"], facts["size"], facts["operation"])

    def table(
        self, info: TableInfo, *, initial: Tensor | None = None, init_std: float | None = None
    ) -> CompactTable:
        return ComposedTable(info, self, init_std=init_std)

    def layout(self, info: TableInfo) -> RowLayout:
        return RowLayout(self.stored.long().cpu().numpy(), range(info.num_fields))

    def pack(self, table: EmbeddingTable, ids: Tensor) -> PackedTable:
        assert torch.equal(ids, self.stored.nonzero().squeeze(1)), "rows are not in the order of ids"
        values = table.values()
        return ComposedPacked(
            self, values["quotient"].cpu(), values["remainder"].cpu(), torch.tensor(table.info.slots.owners)
        )

    def estimate(self, num_fields: int, endpoints: Sequence[str]) -> int:
        rows = self.num_quotients() + 1 + self.num_remainders() + 1
        constants = 4 * 8 * num_fields
        return rows * self.size + constants + sum(COMPOSED_BYTES[name] for name in endpoints)


class ComposedTable(CompactTable):
    """The two tables of a `Composed` form.

    E₁ is drawn as other tables are. Products need a second factor that does not vanish: E₂ is drawn uniformly from
    [½, 1½] (the paper draws both from [√(1/n), 1]), so that rows begin as large as those of other tables; of a sum it
    is drawn like E₁. Initial values of whole tables are not used: no two small tables give them.

    Args:
        info: field offsets and training counts.
        form: which ids are stored, and how.
        init_std: as in `CompactTable`.

    Shape: ids (B, F) int64 -> (B, F, D) float32; weight is E₁ (Q + 1, D), its last row zero, remainder E₂ (R + 1, D).
    """

    quotient_of: Tensor
    remainder_of: Tensor

    def __init__(self, info: TableInfo, form: Composed, *, init_std: float | None = None) -> None:
        nn.Module.__init__(self)  # a table of N rows is what this one does without
        self.info, self.form, self.embedding_dim = info, form.narrowed(), form.size
        self.weight = nn.Parameter(torch.zeros(form.num_quotients() + 1, form.size))
        self.remainder = nn.Parameter(torch.ones(form.num_remainders() + 1, form.size))
        quotient, remainder = form.parts()
        self.register_buffer("quotient_of", quotient, persistent=False)
        self.register_buffer("remainder_of", remainder, persistent=False)
        self.is_product = form.operation == "mult"
        with torch.no_grad():
            drawn = [self.weight[:-1]] if self.is_product else [self.weight[:-1], self.remainder[1:]]
            for values in drawn:
                std = (2 / (info.num_embeddings + form.size)) ** 0.5 if init_std is None else init_std
                values.normal_(std=std)
            if self.is_product:
                self.remainder[1:].uniform_(0.5, 1.5)
            else:
                self.remainder[0] = 0.0
        self.weight.register_hook(_without(-1))
        self.remainder.register_hook(_without(0))

    @property
    def num_embeddings(self) -> int:
        return self.info.num_embeddings

    def forward(self, ids: Tensor) -> Tensor:
        quotient = lookup(self.weight, self.quotient_of[ids])
        remainder = lookup(self.remainder, self.remainder_of[ids])
        return quotient * remainder if self.is_product else quotient + remainder

    @torch.no_grad()
    def table(self) -> Tensor:
        values: Tensor = self(torch.arange(self.num_embeddings, device=self.weight.device))
        return values

    def values(self) -> dict[str, Tensor]:
        return {"quotient": self.weight.detach(), "remainder": self.remainder.detach()}

    def load_values(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self.weight.copy_(tensors["quotient"])
            self.remainder.copy_(tensors["remainder"])

    def num_kept(self) -> int:
        return self.form.num_kept()


def _without(row: int) -> Any:
    """A hook that leaves one row of a parameter as it is."""

    def hook(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[row] = 0
        return gradient

    return hook


class ComposedPacked(PackedTable):
    """Both tables one after the other, with the rows of ids that store nothing between them.

    Row numbers of a field follow one another, so that quotient and remainder are arithmetic. Integers have one scale
    per dimension for both: of a product, each dimension of E₁ is multiplied, and of E₂ divided, by what makes their
    largest values alike.

    Args:
        form: of the table.
        quotient: E₁ (Q + 1, D).
        remainder: E₂ (R + 1, D).
        fields: (S,) the field whose rows each column holds.

    Shape: rows (B, S) int64 -> (B, F, D) float32.
    """

    takes_any_columns = False

    first: Tensor
    modulus: Tensor
    quotient_start: Tensor
    remainder_start: Tensor

    def __init__(self, form: Composed, quotient: Tensor, remainder: Tensor, fields: Tensor) -> None:
        self.is_product = form.operation == "mult"
        if self.is_product:
            tiny = torch.finfo(torch.float32).tiny
            largest = [values.abs().amax(0).clamp(min=tiny) for values in (quotient, remainder)]
            factor = torch.where(largest[0] > tiny, (largest[1] / largest[0]).sqrt(), 1.0)
            quotient, remainder = quotient * factor, remainder / factor
        super().__init__(torch.cat([quotient, remainder]).contiguous(), form.size)
        rows, (quotient_start, remainder_start) = form.rows_of_fields(), form.starts()
        self.num_rows, self.zero = int(rows.sum()), len(quotient) - 1
        self.register_buffer("first", F.pad(rows.cumsum(0), (1, 0))[:-1][fields])
        self.register_buffer("modulus", form.modulus[fields])
        self.register_buffer("quotient_start", quotient_start[fields])
        self.register_buffer("remainder_start", (remainder_start + len(quotient))[fields])

    def dimensions(self) -> Tensor:
        return torch.arange(self.dim).expand(self.values.shape)

    def describe(self) -> dict[str, list[int]]:
        return {"dims": [self.dim], "rows": [self.num_rows]}

    def quantize(self, values: Tensor, scale: Tensor) -> None:
        super().quantize(values, scale.square() if self.is_product else scale)

    def forward(self, rows: Tensor) -> Tensor:
        place = rows - self.first
        quotient = torch.div(place, self.modulus, rounding_mode="floor")
        remainder = place - quotient * self.modulus
        zero = torch.full_like(rows, self.zero)
        quotient = torch.where(rows < self.num_rows, quotient + self.quotient_start, zero)
        one = dequantized(F.embedding(quotient, self.values))
        other = torch.where(rows < self.num_rows, remainder + self.remainder_start, zero)
        two = dequantized(F.embedding(other, self.values))
        embeddings = one * two if self.is_product else one + two
        return embeddings if self.scale is None else embeddings * self.scale
