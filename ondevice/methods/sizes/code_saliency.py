"""Sizes by what each code of a row is worth: second-order saliency in the compact model itself."""

from __future__ import annotations

import dataclasses
from typing import Any

from ondevice.config.sections import Config
from ondevice.errors import ConfigError
from ondevice.forms.base import Form
from ondevice.forms.sizes import Sizes
from ondevice.methods.base import METHODS
from ondevice.methods.code_search import rotate_to_codes
from ondevice.methods.context import SearchContext
from ondevice.methods.sizes.ranked import Ranked
from ondevice.methods.sizing import all_codes


@METHODS.register("code_saliency")
class CodeSaliency(Ranked):
    """Codes by the loss that leaving them out would cost a compact model, once all others are chosen as well as can be.

    First a compact model is trained with free values, all rows at ``compact.store.max_size`` dimensions, by the
    teachers and settings of ``compact.train`` for ``compact.sizes.epochs``, and its axes are rotated to what codes
    are good at, where the model has none of its own. A row with curvature H (`ondevice.methods.code_search`) costs
    ½·(x − e)ᵀ·H·(x − e) when its values x become the entries e of its first k codes; what the k-th code takes from
    that is its gain: much for the codes of rows that occur often, which may get residual levels
    (``compact.store.code_levels=2``) before rows that occur seldom get any code. The retraining begins with that
    model's weights. As in Optimal Brain Damage (LeCun et al. 1990) the loss is taken as quadratic; that codes are
    weighed with the errors they leave is this project's.

    Args:
        row_cost: as in `Ranked`.
    """

    search_keys = ("epochs",)

    def check(self, config: Config) -> None:
        store = config.compact.store
        if store.codes is None:
            raise ConfigError(
                f"compact.store.name: got '{store.name}', but method 'code_saliency' ranks codes; use "
                "compact.store=codes, or another compact.sizes.name"
            )

    def prepare(self, context: SearchContext[Any]) -> list[dict[str, float]]:
        """Train a compact model with free values, and let it say what codes are worth."""
        compact, store = context.config.compact, context.config.compact.store.codes
        assert store is not None  # `check`
        values, codes = all_codes(context.info, context.skip, store, self.embedding_dim)
        weights = store.first_order == "rows" and context.recommender.first_order is not None
        others: list[Form] = [Sizes((codes.sizes > 0).long(), 1)] if weights else []
        free = context.compact_model([values, *others], None)
        history = context.train(free, dataclasses.replace(compact.train, epochs=compact.sizes.epochs))
        rotated = rotate_to_codes(free, codes.code_dims)
        context.begin_retraining_with(free, rotated)
        with context.processes.same_draws(0):
            whole = context.compact_model([codes, *others], free).eval()
            self.gains = context.code_gains(whole).cpu()
        return history
