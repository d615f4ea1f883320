"""Histories that nobody had: what teachers of the next item are asked beside those of the training split."""

from __future__ import annotations

import torch
from torch import Tensor

KEPT = (0.5, 0.95)
"""Between these lies the share of the items that a history keeps of which some are dropped."""


def made_up(
    windows: Tensor, lengths: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Windows made of those of a batch, each in one of three ways, all alike often.

    - *cut*: the newest n items of one, n from 1 to all of them;
    - *dropped*: each item is left out with a probability that is drawn for the window;
    - *spliced*: the newest items of one user after those of another, each part as long as is drawn.

    Made-up rows are what a pupil of few weights learns its teachers' function by where the data say nothing
    (Bucilă et al. 2006, Model Compression); that histories are cut, dropped and spliced is this project's.

    Args:
        windows: items at the end, 0 before them; a window has one item at least.
        lengths: of each.
        count: how many are made.
        generator: of the draws.

    Shape: windows (B, W) int64, lengths (B,) int64 -> (count, W) int64, (count,) int64.
    """
    number, width = windows.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64).to(windows.device)

    one, other = (uniform(2, count) * number).long()
    way = (uniform(count) * 3).long()
    items = windows[one]
    places = torch.arange(width, device=windows.device)
    # the newest n of one; where they are spliced, as many as are left of the other stand before them
    newest = 1 + (uniform(count) * lengths[one]).long()
    kept = places >= width - newest[:, None]
    shifted = places + newest[:, None]
    before = windows[other].gather(1, shifted.clamp(max=width - 1)) * (shifted < width)
    low, high = KEPT
    drop = uniform(count, width) >= low + (high - low) * uniform(count, 1)
    cut = torch.where(kept, items, 0)
    spliced = torch.where(kept, items, before)
    dropped = items.masked_fill(drop & (places < width - 1), 0)
    chosen = torch.where((way == 0)[:, None], cut, torch.where((way == 1)[:, None], dropped, spliced))
    # what is left moves to the end, in its order
    order = torch.argsort((chosen != 0).to(torch.int8), dim=1, stable=True)
    return chosen.gather(1, order), (chosen != 0).sum(1)
