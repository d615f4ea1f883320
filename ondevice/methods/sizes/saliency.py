"""Sizes by what each dimension of a row is worth: second-order saliency in a trained model."""

from __future__ import annotations

from typing import Any

from ondevice.config.sections import Config
from ondevice.errors import ConfigError
from ondevice.forms.table import TableInfo
from ondevice.methods.base import METHODS
from ondevice.methods.context import SearchContext
from ondevice.methods.sizes.ranked import Ranked


@METHODS.register("saliency")
class Saliency(Ranked):
    """Leading dimensions by the loss that leaving them out would cost a trained model.

    The saliency of a value v is ½·h·v², h the curvature of the loss (Optimal Brain Damage, LeCun et al. 1990,
    equation 5). With log loss the Gauss-Newton h of a direction b at one interaction is p·(1 − p)·(b·∂logit/∂e)²,
    summed over those that look the row up, so that a row counts as often as it occurs. First each field's
    dimensions are rotated so that the leading ones hold as much of its curvature-weighted variance as they can: the
    order that a table of leading dimensions would learn. The measurement by rows (`ondevice.methods.gains`) and its use
    for prefix sizes are this project's.

    Args:
        max_size: the largest dimension a row may get.
        pairs: made-up pairs per real row that the curvature is measured on as well.
        row_cost: as in `Ranked`.
    """

    reads_dense = True
    search_keys = ("batch_size",)

    def __init__(
        self,
        info: TableInfo,
        embedding_dim: int,
        *,
        init_std: float | None = None,
        max_size: int = 8,
        pairs: float = 1.0,
        row_cost: float = 0.0,
    ) -> None:
        super().__init__(info, embedding_dim, init_std=init_std, row_cost=row_cost)
        self.max_size = min(max_size, embedding_dim)
        self.pairs = pairs

    def check(self, config: Config) -> None:
        codes = config.compact.store.codes
        if codes is not None and codes.code_levels > 1:
            raise ConfigError(
                f"compact.store.code_levels: got {codes.code_levels}, but method 'saliency' ranks dimensions and "
                "does not know what storing them twice is worth; use compact.sizes=code_saliency, or "
                "compact.store.code_levels=1"
            )

    def prepare(self, context: SearchContext[Any]) -> list[dict[str, float]]:
        """Let the dense model say what dimensions are worth."""
        self.gains = context.gains(self.max_size, self.pairs)
        return []
