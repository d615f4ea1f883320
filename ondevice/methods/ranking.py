"""What each leading dimension of a row is worth, from which the sizes for any budget follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ondevice.errors import BudgetTooSmall
from ondevice.forms.base import Form, SizeLimits
from ondevice.forms.sizes import Sizes


@dataclass(frozen=True)
class Ranking:
    """What each leading dimension of each row is worth: the sizes for any number of values follow from it.

    Args:
        gains: of each leading dimension.
        dim: the table's full dimension D.
        row_cost: what a row that is stored costs beside its dimensions (its key), in values.

    Shape: gains (N, K) float32, K ≤ dim, not negative.
    """

    is_shipped_as_selected: ClassVar[bool] = False
    keeps_positions: ClassVar[bool] = False

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

    @classmethod
    def kind(cls) -> str:
        """The name that files have for it."""
        return "ranking"

    def facts(self) -> dict[str, Any]:
        """As `Form.facts`."""
        return {"dim": self.dim, "row_cost": self.row_cost}

    def tensors(self) -> dict[str, Tensor]:
        """As `Form.tensors`."""
        return {"gains": self.gains}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Ranking:
        """As `Form.of_tensors`."""
        return Ranking(tensors["gains"], facts["dim"], facts["row_cost"])

    def leading(self, limits: SizeLimits) -> Form:
        """The sizes, for the most values that fit, that are worth most together."""
        sizes_of = self.staircase(limits.size_step, limits.max_size)
        low, high = 0, limits.target
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if limits.room(sizes_of(middle)) >= 0 else (low, middle - 1)
        sizes = sizes_of(low)
        if sizes.num_kept() == 0:
            raise BudgetTooSmall(
                f"budget of {limits.target} values: nothing is left for the embeddings; allow more"
            )
        return sizes

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
