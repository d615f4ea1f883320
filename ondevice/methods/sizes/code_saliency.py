"""Sizes by what each code of a row is worth: second-order saliency in the compact model itself."""

from __future__ import annotations

from typing import ClassVar

from ondevice.methods.base import METHODS
from ondevice.methods.sizes.ranked import Ranked


@METHODS.register("code_saliency")
class CodeSaliency(Ranked):
    """Codes by the loss that leaving them out would cost a compact model, once all others are chosen as well as can be.

    First a compact model is trained with free values, all rows at ``retrain.max_size`` dimensions, by the teachers and
    settings of ``retrain`` for ``search.epochs``, and its axes are turned to what codes are good at. A row with
    curvature H (`training.codes`) costs ½·(x − e)ᵀ·H·(x − e) when its values x become the entries e of its first k
    codes; what the k-th code takes from that is its gain: much for the codes of rows that occur often, which may say
    their dimensions a second time (``retrain.code_levels=2``) before rows that occur seldom say theirs at all. The
    retraining begins with that model's weights. As in Optimal Brain Damage (LeCun et al. 1990) the loss is taken as
    quadratic; that codes are weighed with the errors they leave is this project's.

    Args:
        row_cost: as in `Ranked`.
    """

    needs: ClassVar[str] = "compact"
