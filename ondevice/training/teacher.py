"""Teachers: finished models whose predictions a compact model learns."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ondevice.config.sections import ResearchConfig, TeachConfig
from ondevice.errors import ConfigError
from ondevice.forms.table import TableInfo
from ondevice.recommender import Recommender
from ondevice.training.batches import Batches
from ondevice.training.pairs import CANDIDATES, MadeUpPairs, choose, constant_side
from ondevice.training.processes import ALONE, Processes

TEMPERATURES = (0.05, 20.0)  # between which the fitted one is looked for


def dense_number(name: str) -> int | None:
    """0 for ``dense``, k for ``dense+k``; None for another run's folder."""
    match = re.fullmatch(r"dense(?:\+([1-9]\d?))?", name)
    return None if match is None else int(match[1] or 0)


class Ensemble:
    """The joint prediction p of one or several recommenders: σ(z / T).

    z is the mean of their logits, or the logit of the mean of their probabilities. Averaging comes before the
    temperature, since an average of calibrated models is itself too timid (arXiv 2007.08792).

    Args:
        models: trained recommenders over the same ids; they are frozen, in evaluation.
        mean: ``probability`` or ``logit``: what is averaged.
        temperature: T > 0; 1 leaves the prediction as it is.
        processes: that share a batch.
    """

    def __init__(
        self,
        models: Sequence[Recommender],
        mean: str = "probability",
        temperature: float = 1.0,
        processes: Processes = ALONE,
    ) -> None:
        self.models = [model.eval() for model in models]
        for model in self.models:
            model.requires_grad_(False)
        self.mean = mean
        self.temperature = temperature
        self.processes = processes

    @torch.no_grad()
    def predict(self, ids: Tensor) -> Tensor:
        """p of rows, (B, F) -> (B,)."""
        if self.mean == "probability" and self.temperature == 1:
            return torch.stack([torch.sigmoid(model(ids)) for model in self.models]).mean(0)
        return torch.sigmoid(self.logits(ids) / self.temperature)

    @torch.no_grad()
    def logits(self, ids: Tensor) -> Tensor:
        """z of rows, (B, F) -> (B,)."""
        each = torch.stack([model(ids) for model in self.models])
        if self.mean == "logit":
            return each.mean(0)
        # ln Σp − ln Σ(1 − p): neither end is rounded away
        return torch.logsumexp(F.logsigmoid(each), 0) - torch.logsumexp(F.logsigmoid(-each), 0)

    def predict_all(self, ids: Tensor) -> Tensor:
        """p of rows of which every process predicts its share."""
        return self.processes.join(self.predict(*self.processes.share(ids)), len(ids))

    def fit_temperature(self, valid: Batches) -> float:
        """Set T to what minimizes the log loss of a split; returns it."""
        logits, labels = [], []
        for ids, label in valid.in_order():
            share = self.logits(*self.processes.share(ids))
            logits.append(self.processes.join(share, len(ids)).cpu())
            labels.append(label.cpu())
        self.temperature = fitted_temperature(torch.cat(logits), torch.cat(labels))
        return self.temperature


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """T that minimizes the log loss of σ(z / T), within `TEMPERATURES` (Guo et al. 2017, arXiv 1706.04599, eq. 9).

    The loss is convex in 1 / T, and its slope there is the mean of z·(σ(z / T) − y), which bisection brings to 0.

    Shape: logits and labels (n,).
    """
    z, y = logits.double(), labels.double()
    low, high = (torch.tensor(1 / t, dtype=torch.float64).log() for t in reversed(TEMPERATURES))
    for _ in range(60):
        middle = (low + high) / 2
        slope = (z * (torch.sigmoid(z * middle.exp()) - y)).mean()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return float((-low).exp())


class Teacher:
    """Targets from an ensemble, on real rows and on pairs nobody rated.

    Targets of real rows are α·label + (1 − α)·teacher, those of made-up pairs the teacher's alone.

    Args:
        ensemble: whose predictions are learnt.
        batches: the training split.
        item_columns: of the item-side fields.
        label_weight: α in [0, 1].
        pairs: made-up pairs per real row.
        sampling: how they are drawn, as of `MadeUpPairs`.
        power: as of `MadeUpPairs`.

    Raises: ConfigError: when pairs are asked for but all fields are on one side.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        batches: Batches,
        item_columns: tuple[int, ...],
        label_weight: float,
        pairs: float,
        sampling: str = "rows",
        power: float = 0.75,
    ) -> None:
        columns = ensemble.models[0].info.slots.total
        if pairs and not 0 < len(item_columns) < columns:
            raise ConfigError(
                "teach.pairs, compact.teach.pairs: made-up pairs join context and item fields, but the schema has only "
                "one side; set pairs=0 or give fields a side"
            )
        self.ensemble = ensemble
        self.label_weight = label_weight
        self.pairs = pairs
        self._made_up = MadeUpPairs(batches, item_columns, sampling if pairs else "rows", power)
        self._real = torch.cat([ensemble.predict_all(ids) for ids, _ in batches.in_order()])

    def extend(
        self, rows: Tensor, ids: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Ids of a batch, its real rows and then made-up pairs, and soft targets of this process's share of it."""
        real, count = rows.numel(), round(self.pairs * rows.numel())
        whole = torch.cat([ids, self._pairs(count, generator)]) if count else ids
        (places,) = self.ensemble.processes.share(torch.arange(real + count, device=ids.device))
        places, made_up = places[places < real], places[places >= real]
        targets = self.targets(rows[places], labels[places])
        if count:
            targets = torch.cat([targets, self.ensemble.predict(whole[made_up])])
        return whole, targets

    def targets(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Soft targets (B,) of training rows (B,) with their labels (B,)."""
        return self.label_weight * labels + (1 - self.label_weight) * self._real[rows]

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Made-up pairs (count, F) and their targets (count,), the same in every process."""
        pairs = self._pairs(count, generator)
        return pairs, self.ensemble.predict_all(pairs)

    def _pairs(self, count: int, generator: torch.Generator) -> Tensor:
        drawn = self._made_up.draw(count, generator)
        if self._made_up.sampling != "uncertainty":
            return drawn
        chosen = choose(self.ensemble.predict_all(drawn).view(count, CANDIDATES), generator)
        return drawn[torch.arange(count, device=drawn.device) * CANDIDATES + chosen]


def make_teacher(
    settings: TeachConfig,
    models: Sequence[Recommender],
    info: TableInfo,
    train: Batches,
    valid: Batches,
    item_columns: tuple[int, ...],
    *,
    research: ResearchConfig,
    skip: tuple[int, ...] = (),
    processes: Processes = ALONE,
    say: Callable[[str], None] = print,
) -> Teacher:
    """The teacher that a configuration asks for.

    Args:
        settings: what labels and made-up pairs count.
        models: the recommenders that it names.
        info: field offsets and training counts.
        train: the training split.
        valid: the split that a temperature is fitted on.
        item_columns: of the item-side fields.
        research: how models are joined, and how pairs are made up.
        skip: positions of fields whose values the pupil does not tell apart.
        processes: that share a batch.
        say: told the fitted temperature.

    Raises: ConfigError: when pairs are asked for but all fields are on one side.
    """
    ensemble = Ensemble(
        [model.to(train.device) for model in models], research.teacher_mean, processes=processes
    )
    if isinstance(research.teacher_temperature, str):
        temperature = ensemble.fit_temperature(valid)
        say(f"teachers: temperature {temperature:.3f}, fitted on the validation split")
    else:
        ensemble.temperature = research.teacher_temperature
    pairs, sampling, power = settings.pairs, research.pairs_sampling, research.pairs_popularity
    teacher = Teacher(ensemble, train, item_columns, settings.label_weight, pairs, sampling, power)
    side = constant_side(info, item_columns, skip) if pairs else None
    if side is not None:
        warnings.warn(
            f"compact.teach.pairs: the {side} side is the same in every training row as the compact model sees it, so "
            "made-up pairs only repeat rows; set pairs=0",
            stacklevel=2,
        )
    return teacher
