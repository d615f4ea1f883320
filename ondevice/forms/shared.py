"""Rows that several ids read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ondevice.forms.base import FORMS, Form, RowLayout
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo


@FORMS.register("shared")
@dataclass(frozen=True)
class SharedMap(Sizes):
    """Rows that several ids read: hash(key) mod m in the fields that are hashed.

    The rows of a hashed field are those of its ids of non-zero size, in ascending order, but for its unknown id:
    the j-th is the row of hash value j.

    Args:
        shared: the id whose row each id reads.
        modulus: m of each field; 0 where every id has its own row.

    Shape: shared (N,) int64, modulus (F,) int64.
    """

    is_shipped_as_selected: ClassVar[bool] = True

    shared: Tensor
    modulus: Tensor

    def without(self, rows: Tensor) -> SharedMap:
        return SharedMap(self.sizes.masked_fill(rows, 0), self.dim, self.shared, self.modulus)

    def narrowed(self) -> Form:
        return SharedMap(self.sizes, self.width, self.shared, self.modulus)

    def read(self) -> Tensor:
        return self.shared

    def within(self, larger: Form) -> Form:
        return Form.within(self, larger)  # rows of another modulus are other rows

    def tensors(self) -> dict[str, Tensor]:
        return {"sizes": self.sizes, "shared": self.shared, "modulus": self.modulus}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> SharedMap:
        return SharedMap(tensors["sizes"].long(), facts["dim"], tensors["shared"], tensors["modulus"])

    def layout(self, info: TableInfo) -> RowLayout:
        modulus = self.modulus.cpu().numpy()
        classes = super().layout(info).classes
        return RowLayout(classes, np.flatnonzero(modulus).tolist(), modulus, self.shared.cpu().numpy())
