"""Teachers of the next item: finished models whose rankings of all items another one learns."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from ondevice.config.sections import TeachConfig
from ondevice.errors import ConfigError
from ondevice.next_item import NextItemRecommender
from ondevice.training.made_up import made_up
from ondevice.training.softmax import Taught, with_bias


class RankingTeachers:
    """What one or several models of the next item say of every place of a history, real or made up.

    Places of real windows learn α·label + (1 − α)·teachers, those of made-up ones the teachers alone.

    Args:
        models: trained, over the same items; they are frozen, in evaluation.
        settings: α and how many windows are made up for a real one.
        temperature: T of their softened distributions.
        precision: float32, or bfloat16 for their products.

    Raises: ConfigError: when one reads shorter histories than the pupil.
    """

    def __init__(
        self,
        models: Sequence[NextItemRecommender],
        settings: TeachConfig,
        last: int,
        temperature: float = 1.0,
        precision: str = "float32",
    ) -> None:
        for name, model in zip(settings.teachers, models, strict=True):
            if model.model.last < last:
                raise ConfigError(
                    f"teacher {name}: reads the last {model.model.last} items, but its pupil the last {last}; set "
                    f"model.last={model.model.last}, or name a teacher that reads as many"
                )
        self.models = [model.eval().requires_grad_(False) for model in models]
        self.label_weight, self.pairs, self.temperature = settings.label_weight, settings.pairs, temperature
        self.is_low = precision == "bfloat16"
        kind = torch.bfloat16 if self.is_low else torch.float32
        with torch.no_grad():
            each = [model.item_vectors() for model in self.models]
        self.tables = [with_bias(items, bias, kind) for items, bias in each]

    def extended(self, windows: Tensor, lengths: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch of windows (B, W), then made-up ones; and the lengths of all."""
        count = round(self.pairs * len(windows))
        if not count:
            return windows, lengths
        more, of_more = made_up(windows, lengths, count, generator)
        return torch.cat([windows, more]), torch.cat([lengths, of_more])

    @torch.no_grad()
    def taught(self, histories: Tensor, present: Tensor, num_real: int, num_nobody: int) -> Taught:
        """What is learnt at the present places of histories, and at those of nobody, which come after them.

        Args:
            histories: of the real windows, then of made-up ones.
            present: which places hold an item.
            num_real: real windows, the first ones.
            num_nobody: places of nobody.

        Shape: histories and present (B, L).
        """
        told = []
        for model, items in zip(self.models, self.tables, strict=True):
            low = torch.autocast(histories.device.type, torch.bfloat16) if self.is_low else nullcontext()
            with low:
                vectors = model.user_vectors(histories)[present]
            users = torch.cat([vectors.float(), model.model.nobody.expand(num_nobody, -1)])
            told.append((with_bias(users / self.temperature, 1 / self.temperature, items.dtype), items))
        real = present.sum(1)
        weight = torch.full((len(histories),), self.label_weight, device=histories.device)
        weight[num_real:] = 0
        of_nobody = weight.new_full((num_nobody,), self.label_weight)
        return Taught(told, torch.cat([weight.repeat_interleave(real), of_nobody]))
