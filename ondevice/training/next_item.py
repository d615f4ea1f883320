"""The training of what comes next: windows of histories, a softmax over items, NDCG@10 on validation."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ondevice.forms.rows import lookup
from ondevice.models.sequences.places import gaps_of, items_of, with_gaps
from ondevice.next_item import NextItemRecommender
from ondevice.training.batches import Batch
from ondevice.training.fit import Fit
from ondevice.training.optimizers.table_adam import TableAdam
from ondevice.training.ranking import Ranking, dot_scores, rank_all, summary
from ondevice.training.rankings import RankingTeachers
from ondevice.training.softmax import bpr_loss, sampled_softmax_loss, softmax_loss
from ondevice.training.step import make_optimizers
from ondevice.training.windows import Moments, Windows

BATCH = 256  # histories that are read together where nothing is learnt


@torch.no_grad()
def rank_next(recommender: NextItemRecommender, moments: Moments, precision: str = "float32") -> Ranking:
    """Where what came next stands among all items, for a recommender that is then left as it was."""
    training = recommender.training
    recommender.eval()
    vectors, bias = recommender.item_vectors()
    device = vectors.device
    with _arithmetic(precision, device):
        users = [
            recommender.newest(histories.to(device)).float() for histories in moments.histories.split(BATCH)
        ]
    recommender.train(training)
    scores_of = dot_scores(torch.cat(users), vectors, bias)
    return rank_all(scores_of, moments.targets, moments.seen, recommender.num_items)


def _arithmetic(precision: str, device: torch.device) -> Any:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


@dataclass
class NextItemFit(Fit):
    """`Fit` of a recommender of the next item, by the loss that ``settings.loss`` names.

    The vector of nobody learns one item of each window, drawn from all of it: so it ranks by popularity.
    """

    recommender: NextItemRecommender  # type: ignore[assignment]
    train: Windows  # type: ignore[assignment]
    valid: Moments  # type: ignore[assignment]
    teacher: RankingTeachers | None = None  # type: ignore[assignment]
    metrics = ("ndcg@10", "hr@10", "mrr")

    def _make_optimizers(self) -> list[torch.optim.Optimizer]:
        settings = self.settings
        if settings.loss == "softmax":  # which reads every row at every step
            settings = dataclasses.replace(settings, row_wise=False)
        else:
            chances = self.recommender.info.counts[1:].double() ** 0.75
            self.chances = (chances / chances.sum()).to(self.train.device)
        return make_optimizers(self.recommender, settings)  # type: ignore[arg-type]

    def _validate(self) -> dict[str, float]:
        return summary(rank_next(self.recommender, self.valid, self.settings.precision))

    def _train_step(self, batch: Batch, generator: torch.Generator) -> Tensor:
        _, windows, lengths = batch
        draws = torch.rand(len(windows), generator=generator, dtype=torch.float64).to(windows.device)
        one = windows.shape[1] - 1 - (draws * lengths).long()
        first = windows.gather(1, one[:, None])[:, 0]
        if self.teacher is not None:
            windows, _ = self.teacher.extended(windows, lengths, generator)
        windows = with_gaps(windows, self.train.gaps)
        histories, following = windows[:, :-1], windows[:, 1:]
        present = self.recommender.present(histories)
        targets = items_of(torch.cat([following[present], first]))
        step = self._whole if self.settings.loss == "softmax" else self._drawn
        if self.settings.item_dropout:
            drawn = torch.rand(1 + self.recommender.num_items, generator=generator)
            self.recommender.kept = (drawn >= self.settings.item_dropout).float().to(windows.device)
        loss = step(histories, present, targets, generator) / len(targets)
        self.recommender.kept = None
        total = loss
        for table in self.recommender.tables():
            penalty = table.regularization()
            if penalty is not None:
                total = total + penalty / len(targets)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        total.backward()
        for optimizer in reversed(self.optimizers):
            optimizer.step()
        for table in self.recommender.tables():
            table.fetched = None
        return loss.detach()

    def _users(self, embeddings: Tensor, histories: Tensor, present: Tensor, num_nobody: int) -> Tensor:
        """The user's vectors after each present place, and some of nobody, (P, D)."""
        model = self.recommender.model
        with _arithmetic(self.settings.precision, embeddings.device):
            vectors = model(embeddings, present, gaps_of(histories))
        return torch.cat([vectors[present].float(), model.nobody.expand(num_nobody, -1)])

    def _whole(self, histories: Tensor, present: Tensor, targets: Tensor, _: torch.Generator) -> Tensor:
        """The loss over all items."""
        recommender, taught = self.recommender, None
        num_nobody = len(targets) - int(present.sum())
        table = recommender.rows()
        users = self._users(lookup(table, items_of(histories)), histories, present, num_nobody)
        if self.teacher is not None:
            taught = self.teacher.taught(histories, present, num_nobody, num_nobody)
        return softmax_loss(
            users,
            table[1:],
            recommender.biases(recommender.items[None])[0],
            targets - 1,
            self.settings.precision,
            taught,
        )

    def _drawn(
        self, histories: Tensor, present: Tensor, targets: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The loss against drawn items: their rows, and those of the batch, are all that is read."""
        recommender, is_bpr = self.recommender, self.settings.loss == "bpr"
        number = len(targets) if is_bpr else self.settings.num_negatives
        chances = torch.full_like(self.chances, 1.0) if is_bpr else self.chances
        negatives = 1 + torch.multinomial(chances.cpu(), number, True, generator=generator).to(targets.device)
        ids = torch.cat([items_of(histories).flatten(), targets, negatives]).unsqueeze(0)
        for optimizer in self.optimizers:
            if isinstance(optimizer, TableAdam):
                optimizer.fetch(ids)
        counts = (histories.numel(), len(targets), number)
        embeddings, right, wrong = recommender.embed(ids)[0].split(counts)
        _, right_bias, wrong_bias = recommender.biases(ids)[0].split(counts)
        users = self._users(embeddings.view(*histories.shape, -1), histories, present, len(histories))
        if is_bpr:
            return bpr_loss(users, (right, right_bias), (wrong, wrong_bias))
        log_expected = (self.chances[negatives - 1] * number).log().float()
        return sampled_softmax_loss(
            users, (right, right_bias), (wrong, wrong_bias), targets, negatives, log_expected
        )
