"""The contract of a form: one way of storing a table, and everything that is to be known of it.

A form says which values of a table (N, D) are kept, and who reads them; the values themselves stay with the module
that trains them. Nobody else asks for a form's type: what a form can do differently from others it says itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ondevice.errors import UserError
from ondevice.forms.packed import PackedTable
from ondevice.forms.rows import lookup
from ondevice.forms.table import EmbeddingTable, TableInfo
from ondevice.registry import Registry

FORMS: Registry[type[Form]] = Registry("form")
LAYOUTS = ("staircase", "csr")
"""What ``--layout`` may ask for: rows by falling size, or values with their columns."""


@dataclass(frozen=True)
class RowLayout:
    """How the rows of a form are numbered in a program.

    Args:
        classes: size class of each id; rows of one class stay together, the largest class first; 0 stores nothing.
        by_id: fields whose rows follow one another in the order of their ids and not of their keys.
        modulus: for each field the number of rows that its keys share by their hash, 0 where none do; None for no
            such field.
        read: the id whose row each id reads; None for its own.

    Shape: classes and read (N,) int64, modulus (F,) int64.
    """

    classes: np.ndarray
    by_id: Collection[int] = ()
    modulus: np.ndarray | None = None
    read: np.ndarray | None = None


@dataclass(frozen=True)
class SizeLimits:
    """What sizes made of a form have to keep to.

    Args:
        target: most values, over the tables that share the budget.
        room: how many values are left when a table of sizes is stored; below 0 when it is too large.
        max_size: largest dimension of a row; None for no limit.
        size_step: sizes are multiples of this.
        per_row: values that a row costs beside its dimensions.
        beside: values that are stored whatever the sizes are.
    """

    target: int
    room: Callable[[Any], int]
    max_size: int | None = None
    size_step: int = 1
    per_row: int = 0
    beside: int = 0


class Form(ABC):
    """What is kept of one table: frozen, made by a method, and the one place that knows how it is stored.

    Subclasses are registered in `FORMS` and have a ``dim``, the table's full dimension D.
    """

    dim: int
    is_shipped_as_selected: ClassVar[bool] = False
    """Whether a retraining takes the form as a method found it, without steps, limits and codes of sizes."""
    keeps_positions: ClassVar[bool] = False
    """Whether single values are kept, and not the first of a row."""
    layout_name: ClassVar[str] = "staircase"
    """Which of `LAYOUTS` it has."""

    @classmethod
    def kind(cls) -> str:
        """The name that files have for it."""
        return FORMS.name_of(cls)

    @property
    def width(self) -> int:
        """Dimension of the table that is trained under it."""
        return self.dim

    @abstractmethod
    def row_sizes(self) -> Tensor:
        """Stored values of each id, (N,) int64."""

    @abstractmethod
    def mask(self) -> Tensor:
        """The values that are read, (N, D) bool."""

    @abstractmethod
    def without(self, rows: Tensor) -> Form:
        """The same with ``rows`` ((N,) bool) storing nothing."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Numbers that `of_tensors` needs beside `tensors`, for JSON."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What is to be saved of it."""

    @classmethod
    @abstractmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Form:
        """Read back from `tensors` and `facts`."""

    @abstractmethod
    def layout(self, info: TableInfo) -> RowLayout:
        """How its rows are numbered in a program."""

    @abstractmethod
    def pack(self, table: EmbeddingTable, ids: Tensor) -> PackedTable:
        """The module that is exported; equals ``table`` in evaluation.

        Args:
            table: trained under this form.
            ids: training id of each program row (R,), in the order of `layout`.
        """

    @abstractmethod
    def estimate(self, num_fields: int, endpoints: Sequence[str]) -> int:
        """Bytes of the table and its lookups in a program with these endpoints."""

    def padding(self, num_fields: int) -> int:
        """Of these bytes those that say nothing: of zeros, where rows are stored at more dimensions than they keep."""
        return 0

    def num_kept(self) -> int:
        """Number of values that are stored."""
        return int(self.row_sizes().sum())

    def read(self) -> Tensor:
        """The id read in place of each, (N,) int64."""
        return torch.arange(len(self.row_sizes()))

    def within(self, larger: Form) -> Form:
        """What is kept both here and in a form of the same kind: a part of it, for elastic tables.

        Raises: UserError: when parts of such a form are no forms.
        """
        raise UserError(f"a table of {self.kind()} has no smaller versions; set compact.train.elastic=false")

    def narrowed(self) -> Form:
        """The same form of a table that is no wider than `width`."""
        return self

    @classmethod
    def holding(cls, form: Form) -> Form | None:
        """What stores the values of another form, where this one can store any; else None."""
        return None

    def with_sizes(self, sizes: Tensor) -> Form:
        """The same with other stored values of each row, (N,) int64.

        Raises: UserError: when it is no form of sizes.
        """
        raise UserError(f"a table of {self.kind()} is no table of sizes")

    def laid_out(self, layout: str) -> Form:
        """What stores the same values in one of `LAYOUTS`.

        Raises: UserError: when no form does.
        """
        if layout == self.layout_name:
            return self
        others = (FORMS[name] for name in FORMS if FORMS[name].layout_name == layout)
        for made in (other.holding(self) for other in others):
            if made is not None:
                return made
        raise UserError(
            f"layout {layout} cannot hold the {self.kind()} that this model keeps; export with --layout "
            f"{self.layout_name}, or retrain with sizes"
        )

    def leading(self, limits: SizeLimits) -> Form:
        """Sizes in proportion to the values that each row keeps.

        Raises: UserError: when the limits leave nothing.
        """
        raise UserError(f"a table of {self.kind()} is no table of sizes")

    def table(
        self, info: TableInfo, *, initial: Tensor | None = None, init_std: float | None = None
    ) -> CompactTable:
        """The module that is trained under it: arguments as of `CompactTable`."""
        return CompactTable(info, self, initial=initial, init_std=init_std)


class CompactTable(EmbeddingTable):
    """A table under a form that no longer changes: kept values are trained, the others are zero.

    Under sizes the table is as wide as the largest one, so narrow models are narrow while they train too.

    Args:
        info: field offsets and training counts.
        form: what is kept.
        initial: initial values (N, D), such as those saved before the search (lottery ticket); None to draw.
        init_std: standard deviation of drawn values; None for Xavier uniform.

    Shape: ids (B, F) int64 -> (B, F, D) float32, D the form's width.
    """

    keep: Tensor
    level: Tensor | None = None
    """What is read and trained for now, (N, D) bool: a part of ``keep``; None for all of it."""

    def __init__(
        self, info: TableInfo, form: Form, *, initial: Tensor | None = None, init_std: float | None = None
    ) -> None:
        super().__init__(info, form.width, init_std=init_std)
        self.form = form.narrowed()
        self.register_buffer("keep", form.mask()[:, : form.width].clone())
        with torch.no_grad():
            if initial is not None:
                self.weight.copy_(initial[:, : form.width])
            self.weight.mul_(self.keep)
        # a gradient of zero keeps a zero weight at zero under Adam, momentum and weight decay alike
        self.weight.register_hook(lambda gradient: gradient * self.keep)

    @property
    def in_effect(self) -> Tensor:
        """The kept values that are read, (N, D) bool."""
        return self.keep if self.level is None else self.level

    def of_rows(self, rows: Tensor, inverse: Tensor, *values: Tensor) -> Tensor:
        return lookup(values[0] * self.in_effect.index_select(0, rows), inverse)

    def of_ids(self, ids: Tensor) -> Tensor:
        embeddings = super().of_ids(ids)
        return embeddings if self.level is None else embeddings * self.level[ids]

    def table(self) -> Tensor:
        return self.weight.detach() * self.in_effect

    def num_kept(self) -> int:
        return int(self.in_effect.sum())

    def load_values(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `values` gave of a table of the same form."""
        with torch.no_grad():
            self.weight.copy_(tensors["weight"])

    def take_part(self, larger: EmbeddingTable) -> None:
        """Take over what a larger table stores beside its free values, which are taken over already."""
