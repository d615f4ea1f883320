"""Ways of storing what is kept of the tables: one frozen dataclass each, whose fields are the options that it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ondevice.config.check import check
from ondevice.registry import Registry

STORES: Registry[type[Store]] = Registry("store")
FIRST_ORDERS = ("rows", "projection", "none")


@dataclass(frozen=True)
class Store:
    """What every way of storing a compact model is told; the options of one way alone have a value for the others."""

    keeps_positions: ClassVar[bool] = False
    """Whether single values are kept where a method found them, and not the first of a row."""

    first_order: str = "rows"
    """rows (a weight for each stored row), projection (⟨e, v_field⟩: no byte per row) or none."""
    linear_bits: int | None = None
    """Bits of hidden linear layers that are rounded already in training, by torchao: 4 or 8; null: afterwards, to 8."""
    fingerprint_bits: int | None = None
    """Bits of a fingerprint that stands for a key in the vocabulary, in the fields where that is smaller: one unknown
    key in 2^bits is then taken for another; null: keys are stored as they are."""

    def __post_init__(self) -> None:
        check("first_order", self.first_order, self.first_order in FIRST_ORDERS, "rows, projection or none")
        check("linear_bits", self.linear_bits, self.linear_bits in (None, 4, 8), "4, 8 or null")
        bits = self.fingerprint_bits
        check("fingerprint_bits", bits, bits is None or 1 <= bits <= 32, "from 1 to 32 or null")

    @property
    def name(self) -> str:
        """The name that a configuration has for it."""
        return STORES.name_of(type(self))

    @property
    def max_size(self) -> int | None:
        """Largest dimension of a row; None for no limit."""
        return None

    @property
    def size_step(self) -> int:
        """What sizes are multiples of."""
        return 1

    @property
    def codes(self) -> Codes | None:
        """How codes are stored; None where no values are."""
        return None


@STORES.register("positions")
@dataclass(frozen=True)
class Positions(Store):
    """The mask as a method found it: int8 values with their places, for comparison with papers."""

    keeps_positions = True


@STORES.register("int8")
@dataclass(frozen=True)
class Int8(Store):
    """Sizes, per-row counts of leading dimensions, whose values are int8."""

    max_size: int | None = None
    """Largest dimension of a row; null for no limit."""
    size_step: int = 2
    """Sizes are multiples of this, the width of the staircase's cells; 1 wastes nothing but looks up more cells."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check("size_step", self.size_step, self.size_step >= 1, "at least 1")
        check("max_size", self.max_size, self.max_size is None or self.max_size >= 1, "at least 1 or null")


@STORES.register("codes")
@dataclass(frozen=True)
class Codes(Int8):
    """Sizes whose cells are a byte each, an index into a learnt codebook."""

    code_dims: int = 2
    """Dimensions of a cell that is stored as one byte."""
    code_levels: int = 1
    """1, or 2 where rows of sizes above max_size, up to twice that, have residual codes: a second byte for each cell,
    which refines the first."""
    code_start: float = 0.4
    """Share of the steps in which values are trained freely before they become codes, in [0, 1)."""
    code_choice: str = "nearest"
    """nearest (to values that go on being trained, straight through) or loss (what lowers it most: Newton's steps)."""
    code_learning_rate: float | None = None
    """Learning rate from code_start on, with code_choice=loss; null for a tenth of that of the training."""
    codebook: str = "learnt"
    """learnt, or grid: every combination of integers with one scale for the table, of 4 bits (code_dims=2) or 2
    (code_dims=4), which is plain quantization-aware training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check("code_dims", self.code_dims, 1 <= self.code_dims <= 16, "from 1 to 16")
        whole = self.size_step % self.code_dims == 0 and (self.max_size or 0) % self.code_dims == 0
        check("size_step", self.size_step, whole, "a multiple of code_dims, and max_size as well")
        check("code_levels", self.code_levels, self.code_levels in (1, 2), "1 or 2")
        bounded = self.code_levels == 1 or self.max_size is not None
        check("code_levels", self.code_levels, bounded, "1 without max_size")
        check("code_start", self.code_start, 0 <= self.code_start < 1, "in [0, 1)")
        choices = ("nearest", "loss")
        check("code_choice", self.code_choice, self.code_choice in choices, "nearest or loss")
        rate = self.code_learning_rate
        check("code_learning_rate", rate, rate is None or rate > 0, "above 0 or null")
        check("codebook", self.codebook, self.codebook in ("learnt", "grid"), "learnt or grid")
        if self.codebook == "grid":
            check("code_dims", self.code_dims, self.code_dims in (2, 4), "2 or 4 with codebook=grid")
            check("code_levels", self.code_levels, self.code_levels == 1, "1 with codebook=grid")
            nearest = self.code_choice == "nearest"
            check("code_choice", self.code_choice, nearest, "nearest with codebook=grid")

    @property
    def codes(self) -> Codes:
        return self
