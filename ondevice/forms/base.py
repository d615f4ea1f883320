"""What an embedding method ends in: the compact forms that can be stored and shipped.

A form says which values of a table (N, D) are kept; the values themselves stay with the module that trains them.
Methods of the sizes family end in `Sizes`; PEP as published ends in `Mask`; `Codes` are sizes whose values are stored
as indices into a codebook; methods of the sharing family end in a `SharedMap`. A `Ranking` gives the sizes for any
number of values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ondevice.errors import UserError

MAX_LEVELS = 2
"""How often a row of codes may say its dimensions."""


@dataclass(frozen=True)
class Sizes:
    """How many leading dimensions each row keeps.

    Args:
        sizes: kept dimensions per row, each in [0, dim].
        dim: the table's full dimension D.

    Shape: sizes (N,) int64.
    """

    sizes: Tensor
    dim: int

    def __post_init__(self) -> None:
        if self.sizes.dim() != 1 or self.sizes.dtype != torch.int64:
            raise ValueError(f"sizes must be (N,) int64, got {tuple(self.sizes.shape)} {self.sizes.dtype}")
        most = self.most_values()
        if self.sizes.numel() and (int(self.sizes.min()) < 0 or int(self.sizes.max()) > most):
            raise ValueError(f"sizes must lie in [0, {most}], got up to {int(self.sizes.max())}")

    def most_values(self) -> int:
        """The largest size a row may have."""
        return self.dim

    def num_kept(self) -> int:
        """Number of values that are stored."""
        return int(self.sizes.sum())

    def row_sizes(self) -> Tensor:
        """Stored values per row, (N,) int64."""
        return self.sizes

    def mask(self) -> Tensor:
        """The kept positions as (N, D) bool: the first ``sizes[n]`` of each row."""
        return torch.arange(self.dim, device=self.sizes.device)[None, :] < self.sizes[:, None]

    def without(self, rows: Tensor) -> Sizes:
        """The same with ``rows`` ((N,) bool) removed entirely."""
        return Sizes(self.sizes.masked_fill(rows, 0), self.dim)

    def snapped(self, classes: list[int]) -> Sizes:
        """Each size moved to the nearest of ``classes`` (ties upward), so that every class is one block.

        A row that kept something keeps at least the smallest non-zero class.
        """
        allowed = torch.tensor(sorted({0, *classes}), dtype=torch.int64)
        if int(allowed[-1]) > self.dim:
            raise UserError(f"size classes {classes}: the largest is above the table's dimension {self.dim}")
        distance = (self.sizes[:, None] - allowed[None, :]).abs() * 2 - (
            allowed[None, :] > self.sizes[:, None]
        ).long()
        nearest = allowed[distance.argmin(1)]
        smallest = int(allowed[1]) if allowed.numel() > 1 else 0
        return Sizes(torch.where(self.sizes > 0, nearest.clamp(min=smallest), 0), self.dim)


@dataclass(frozen=True)
class Codes(Sizes):
    """Sizes whose cells of ``code_dims`` dimensions are stored as one byte each.

    A size above ``dim`` is that of a row whose leading dimensions are refined: its cells from dim / code_dims on say
    anew, more finely, what the cells from the first on have said (residual quantization).

    Args:
        sizes: stored values per row, each in [0, `MAX_LEVELS` · dim], a cell counted as ``code_dims`` values.
        code_dims: dimensions per cell; every size is a multiple of it.
    """

    code_dims: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.code_dims < 1 or self.dim % self.code_dims or bool((self.sizes % self.code_dims).any()):
            raise ValueError(f"sizes and dim {self.dim} must be multiples of code_dims {self.code_dims}")

    def without(self, rows: Tensor) -> Codes:
        """The same with ``rows`` ((N,) bool) removed entirely."""
        return Codes(self.sizes.masked_fill(rows, 0), self.dim, self.code_dims)

    def most_values(self) -> int:
        return MAX_LEVELS * self.dim

    @property
    def levels(self) -> int:
        """How often the most finely described rows say each dimension, from 1 to `MAX_LEVELS`."""
        return max(1, -(-int(self.sizes.max()) // self.dim))

    def cells(self) -> Tensor:
        """Which cells each row has, (N, levels · dim / code_dims) bool."""
        ends = torch.arange(0, self.levels * self.dim, self.code_dims, device=self.sizes.device)
        return ends[None, :] < self.sizes[:, None]


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

    shared: Tensor
    modulus: Tensor

    def without(self, rows: Tensor) -> SharedMap:
        """The same with the rows of some ids ((N,) bool) removed entirely."""
        return SharedMap(self.sizes.masked_fill(rows, 0), self.dim, self.shared, self.modulus)


@dataclass(frozen=True)
class Mask:
    """Which single values are kept, anywhere in a row (PEP as published, magnitude pruning).

    Shape: kept (N, D) bool.
    """

    kept: Tensor

    def __post_init__(self) -> None:
        if self.kept.dim() != 2 or self.kept.dtype != torch.bool:
            raise ValueError(f"a mask must be (N, D) bool, got {tuple(self.kept.shape)} {self.kept.dtype}")

    @property
    def dim(self) -> int:
        return int(self.kept.shape[1])

    def num_kept(self) -> int:
        """Number of values that are stored."""
        return int(self.kept.sum())

    def row_sizes(self) -> Tensor:
        """Stored values per row, (N,) int64."""
        return self.kept.sum(1)

    def mask(self) -> Tensor:
        """The kept positions, (N, D) bool."""
        return self.kept

    def without(self, rows: Tensor) -> Mask:
        """The same with ``rows`` ((N,) bool) removed entirely."""
        return Mask(self.kept & ~rows[:, None])


@dataclass(frozen=True)
class Ranking:
    """What each leading dimension of each row is worth: the sizes for any number of values follow from it.

    Args:
        gains: of each leading dimension.
        dim: the table's full dimension D.
        row_cost: what a row that is stored costs beside its dimensions (its key), in values.

    Shape: gains (N, K) float32, K ≤ dim, not negative.
    """

    gains: Tensor
    dim: int
    row_cost: float = 0.0

    def __post_init__(self) -> None:
        if self.gains.dim() != 2 or self.gains.shape[1] > self.dim or bool((self.gains < 0).any()):
            raise ValueError(
                f"gains must be (N, K), K up to {self.dim}, and not negative, got {tuple(self.gains.shape)}"
            )

    def num_kept(self) -> int:
        """Number of values that are worth something."""
        return int(self.row_sizes().sum())

    def row_sizes(self) -> Tensor:
        """Leading dimensions up to the last that is worth something, (N,) int64."""
        places = torch.arange(1, self.gains.shape[1] + 1)
        return ((self.gains > 0) * places).amax(1)

    def mask(self) -> Tensor:
        """Those dimensions as (N, D) bool."""
        return torch.arange(self.dim)[None, :] < self.row_sizes()[:, None]

    def without(self, rows: Tensor) -> Ranking:
        """The same with ``rows`` ((N,) bool) worth nothing."""
        return Ranking(self.gains.masked_fill(rows[:, None], 0.0), self.dim, self.row_cost)

    def staircase(self, step: int = 1, max_size: int | None = None) -> Callable[[int], Sizes]:
        """What makes the sizes, multiples of ``step``, of at most so many values that are worth most together.

        Cells of ``step`` dimensions are taken by their gain for what they cost. Since they are stored from the first
        on, a large gain behind small ones is worth what they are on average (`concave`).
        """
        limit = min(max_size or self.gains.shape[1], self.gains.shape[1]) // step * step
        costs = torch.full((limit // step,), float(step))
        costs[:1] += self.row_cost
        cells = concave(self.gains[:, :limit].unflatten(1, (-1, step)).sum(2), costs)
        order = torch.argsort(cells.flatten(), descending=True, stable=True)[: int((cells > 0).sum())]

        def of(num_values: int) -> Sizes:
            kept = torch.zeros(cells.numel(), dtype=torch.bool)
            kept[order[: num_values // step]] = True
            return Sizes(kept.view_as(cells).sum(1) * step, self.dim)

        return of


def concave(gains: Tensor, costs: Tensor) -> Tensor:
    """Gains for what they cost that never grow along a row: the slopes of the concave hull of cumulative gains.

    Shape: gains (N, K), costs (K,) above 0 -> (N, K) float64; the slopes times the costs add up to each row's gains.
    """
    gained = torch.nn.functional.pad(gains.double().cumsum(1), (1, 0))
    spent = torch.nn.functional.pad(costs.double().cumsum(0), (1, 0))
    count = gains.shape[1]
    slopes = torch.empty_like(gained[:, 1:])
    for place in range(count):
        # the hull's slope is min over starts ≤ place of the max over ends > place of the mean slope in between
        least = torch.full_like(gained[:, 0], torch.inf)
        for start in range(place + 1):
            ends = range(place + 1, count + 1)
            means = [(gained[:, end] - gained[:, start]) / (spent[end] - spent[start]) for end in ends]
            least = torch.minimum(least, torch.stack(means).amax(0))
        slopes[:, place] = least
    return slopes


Form = Sizes | Mask | Ranking


def form_tensors(form: Form, name: str) -> dict[str, Tensor]:
    """A form as named tensors that `form_of_tensors` reads back."""
    if isinstance(form, Ranking):
        return {name: form.gains}
    tensors = {name: form.mask().to(torch.uint8)}
    if isinstance(form, SharedMap):
        tensors |= {f"{name}/shared": form.shared, f"{name}/modulus": form.modulus}
    return tensors


def form_of_tensors(
    tensors: dict[str, Tensor], name: str, dim: int, ruled: bool, row_cost: float = 0.0
) -> Form:
    """The form that `form_tensors` wrote.

    Args:
        tensors: what was written, and others.
        name: of the form.
        dim: the table's full dimension.
        ruled: whether it was sizes, and no mask.
        row_cost: of a `Ranking`.
    """
    stored = tensors[name]
    if stored.is_floating_point():
        return Ranking(stored, max(dim, stored.shape[1]), row_cost)
    kept = stored.bool()
    if not ruled:
        return Mask(kept)
    if f"{name}/shared" in tensors:
        shared, modulus = tensors[f"{name}/shared"], tensors[f"{name}/modulus"]
        return SharedMap(kept.sum(1), kept.shape[1], shared, modulus)
    return Sizes(kept.sum(1), kept.shape[1])
