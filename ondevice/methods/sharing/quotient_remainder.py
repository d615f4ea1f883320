"""Quotient and remainder: every value has a row of its own, made of rows of two small tables."""

from __future__ import annotations

import torch
from torch import Tensor

from ondevice.config.budget import parse_budget
from ondevice.config.sections import Config
from ondevice.errors import BudgetTooSmall, ConfigError, nearest
from ondevice.forms.composed import OPERATIONS, Composed
from ondevice.forms.table import TableInfo
from ondevice.methods.base import METHODS, Method


@METHODS.register("quotient_remainder")
class QuotientRemainder(Method):
    """A field of n values has n/m + m rows in two tables, and the row of a value is the product, or sum, of two.

    Quotient-remainder trick (KDD 2020, arXiv 1909.02107): `ondevice.forms.composed`. One m serves all fields, the
    smallest that the budget allows, but at most √n where a field's rows are fewest; a field that would not shrink
    keeps a row for each value. Values are numbered in the order of their keys, so that quotients group what lies
    together there.

    Args:
        dim: values per row.
        operation: mult or add.
    """

    ships_as_selected = True

    def __init__(
        self,
        info: TableInfo,
        embedding_dim: int,
        *,
        init_std: float | None = None,
        dim: int = 8,
        operation: str = "mult",
    ) -> None:
        super().__init__(info, embedding_dim, init_std=init_std)
        if dim < 1:
            raise ConfigError(f"compact.sizes.dim: got {dim}; it must be at least 1")
        if operation not in OPERATIONS:
            raise ConfigError(
                f"compact.sizes.operation: unknown '{operation}' {nearest(operation, OPERATIONS)}"
            )
        self.dim, self.operation = min(dim, embedding_dim), operation

    def check(self, config: Config) -> None:
        if config.compact.store.codes is not None:
            raise ConfigError(
                "compact.store.name: got 'codes', but method 'quotient_remainder' composes rows, which are stored as "
                "int8 values; set compact.store=int8"
            )
        if config.compact.train.elastic:
            raise ConfigError(
                "compact.train.elastic: method 'quotient_remainder' has a modulus for each budget, so that a "
                "smaller model is no part of a larger one; set compact.train.elastic=false"
            )
        in_bytes = [b for b in config.compact.budgets if parse_budget(b)[0] == "bytes"]
        if in_bytes:
            raise ConfigError(
                f"compact.budgets: {in_bytes[0]} is in bytes, which are met by sizes, but method 'quotient_remainder' "
                "composes rows; give a number of values or a share"
            )

    def compact(self, target: int | None = None) -> Composed:
        """At most ``target`` values: the smallest modulus that fits, then fewer dimensions.

        Raises: UserError: when not even one dimension fits.
        """
        seen = torch.nn.functional.pad((self.info.counts > 0).long().cumsum(0), (1, 0))
        counts = seen[self.info.field_offsets].diff()
        largest = max(1, int(counts.max().double().sqrt().ceil()))
        form = self._form(self._modulus(counts, 1), self.dim)
        if target is None or form.num_kept() <= target:
            return form
        low, high = (
            1,
            largest,
        )  # the number of values falls as the modulus rises to the root of the largest field
        while low < high:
            middle = (low + high) // 2
            fits = self._rows(counts, middle) * self.dim <= target
            low, high = (low, middle) if fits else (middle + 1, high)
        rows = self._rows(counts, low)
        dim = min(self.dim, target // max(1, rows))
        if dim < 1:
            raise BudgetTooSmall(
                f"method quotient_remainder: {target} values are fewer than the {rows} rows of the smallest tables; "
                "allow more"
            )
        return self._form(self._modulus(counts, low), dim)

    def _form(self, modulus: Tensor, size: int) -> Composed:
        info = self.info
        return Composed(
            info.counts > 0, info.field_offsets, modulus, self.embedding_dim, size, self.operation
        )

    @staticmethod
    def _modulus(counts: Tensor, modulus: int) -> Tensor:
        """m of each field: as given, at most √n, and 1 where that does not shrink the field."""
        each = counts.double().sqrt().floor().long().clamp(max=modulus).clamp(min=1)
        rows = (counts + each - 1) // each + each
        return torch.where((each > 1) & (rows < counts), each, 1)

    def _rows(self, counts: Tensor, modulus: int) -> int:
        """Rows of both tables."""
        each = self._modulus(counts, modulus)
        return int(((counts + each - 1) // each + torch.where(each > 1, each, 0)).sum())
