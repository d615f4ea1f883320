"""Which code each cell of a table has, chosen by what it does to the loss.

A row's embedding e enters every interaction that looks the row up, so the loss over a sample of interactions has,
with all else as it is, the slope g = Σ (p − y)·z' and the Gauss-Newton curvature H = Σ p·(1 − p)·z'·z'ᵀ by e, z' the
gradient of the logit. A factorization machine's logit is linear in the rows of one field, so that there nothing but the
curve of the logistic loss is left out. Codes are chosen for e − (H + λ)⁻¹·g, one Newton step, in the metric H + λ, one
field after the other: rows of one field meet in no interaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ondevice.config.sections import TrainConfig
from ondevice.config.stores import Codes, Store
from ondevice.forms.codebook import FIT_ROWS, cell_gains, fit_codebook, spread
from ondevice.forms.codes import CodedEmbedding
from ondevice.recommender import Recommender, TableModel
from ondevice.training.batches import Batches
from ondevice.training.processes import ALONE, Processes
from ondevice.training.stages import MakeStages
from ondevice.training.teacher import Teacher

DAMPING = 0.1  # λ, in the mean curvature of a dimension
SAMPLE_BYTES = 256 << 20  # of the interactions that codes are chosen on
STARTS = 3  # fits of codebook and codes, of which the one with the least loss is kept
ROTATION_LOSS = 0.2  # of the variance: where more would leave the sizes of rows, axes are not rotated
CODE_RATE = 0.1  # of the learning rate of free values
MATRIX_BYTES = 1 << 30  # of curvatures held at once
ROWS_AT_ONCE = 8192


class Samples:
    """Interactions with their targets in random order: training rows, and made-up pairs where a teacher labels them.

    Args:
        train: the training split; all of its rows, or as many as `SAMPLE_BYTES` hold.
        teacher: gives targets, and pairs in the share that it was made with; None for labels.
        seed: of the draws.
    """

    def __init__(self, train: Batches, teacher: Teacher | None, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        width = train.take(torch.zeros(1, dtype=torch.int64, device=train.device)).shape[1]
        pairs = teacher.pairs if teacher is not None else 0.0
        count = min(train.num_rows, int(SAMPLE_BYTES / (4 * width + 4) / (1 + pairs)))
        rows = torch.randperm(train.num_rows, generator=generator)[:count].to(train.device)
        ids, targets = [], []
        for part in rows.split(ROWS_AT_ONCE):
            ids.append(train.take(part).int())
            labels = train.labels(part)
            targets.append(labels if teacher is None else teacher.targets(part, labels))
        left = round(pairs * count)
        while teacher is not None and left:
            drawn, predicted = teacher.draw(min(left, ROWS_AT_ONCE), generator)
            ids.append(drawn.int())
            targets.append(predicted)
            left -= len(drawn)
        order = torch.randperm(sum(map(len, targets)), generator=generator).to(train.device)
        self.ids, self.targets = torch.cat(ids)[order], torch.cat(targets)[order]

    def __len__(self) -> int:
        return len(self.targets)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(ids (B, S) int64, targets (B,)) of all interactions."""
        for ids, targets in zip(self.ids.split(ROWS_AT_ONCE), self.targets.split(ROWS_AT_ONCE), strict=True):
            yield ids.long(), targets


class CodeSearch:
    """Begins a table's codes, and chooses them anew.

    Args:
        recommender: whose embedding table it is, in evaluation mode and without pending updates.
        samples: what the loss is measured on.
        processes: that share the samples.
        before: called with the number of each chunk of samples before it is computed, such as to change the level of
            an elastic table.
    """

    def __init__(
        self,
        recommender: Recommender,
        samples: Samples,
        processes: Processes = ALONE,
        before: Callable[[int], None] | None = None,
    ) -> None:
        assert recommender.embedding.learns_codes, "a table without codes"
        self.recommender, self.table = recommender, cast(CodedEmbedding, recommender.embedding)
        self.samples, self.processes, self.before = samples, processes, before

    def begin(self) -> None:
        """Fit codebook and codes to the free values under their curvature, and make one `sweep`.

        The fit depends on where it starts, so that the best of `STARTS` is kept.
        """
        rows, _ = self.table.stored()
        curvature = None  # by occurrences where matrices would take too much
        if len(rows) * self.table.embedding_dim**2 * 4 <= MATRIX_BYTES:
            curvature = self._damped(rows)
        least, best = float("inf"), (self.table.codes, self.table.codebook.detach())
        for _ in range(STARTS):
            self.table.begin_codes(curvature)
            self.sweep()
            loss = self.loss()
            if loss < least:
                least, best = loss, (self.table.codes.clone(), self.table.codebook.detach().clone())
        self.table.set_codes(*best)

    def _damped(self, rows: Tensor) -> Tensor:
        """Curvature (R, D, D) of some rows, no direction of which is free."""
        curvature, _ = self._measure(rows, None)
        scale = curvature.diagonal(dim1=1, dim2=2).mean(1)
        scale = DAMPING * scale + 1e-3 * scale.mean()
        curvature.diagonal(dim1=1, dim2=2).add_(scale[:, None])
        return curvature

    def gains(self) -> Tensor:
        """What each code of each row takes from the mean loss, shared among the dimensions of its cell.

        Codes of a codebook that is fitted to the first level of as many rows as `FIT_ROWS` and `MATRIX_BYTES` allow.

        Shape: (N, levels · D), for free values and rows with all of their cells.
        """
        table = self.table
        rows, _ = table.stored()
        most = max(1, MATRIX_BYTES // (4 * table.embedding_dim**2))
        some = rows[torch.randperm(len(rows))[: min(most, FIT_ROWS)].sort().values.to(rows.device)]
        first = table.cells[some, : table.embedding_dim // table.code_dims]
        weight = table.occurrences(some)
        _, codebook = fit_codebook(
            table.weight.detach()[some], first, weight, table.code_dims, self._damped(some)
        )
        gained = torch.zeros(table.num_embeddings, table.cells.shape[1], device=rows.device)
        for part in rows.split(most):
            gained[part] = cell_gains(
                table.weight.detach()[part], self._damped(part), codebook, table.cells.shape[1]
            )
        return gained.repeat_interleave(table.code_dims, 1) / table.code_dims

    @torch.no_grad()
    def loss(self) -> float:
        """Mean loss over the samples."""
        total = torch.zeros((), dtype=torch.float64, device=self.samples.targets.device)
        for ids, targets in self.samples.chunks():
            share = self.processes.share(ids, targets)
            total += F.binary_cross_entropy_with_logits(
                self.recommender(share[0]), share[1], reduction="sum"
            ).double()
        return float(self.processes.total(total)) / len(self.samples)

    def sweep(self) -> None:
        """One Newton step of every field's rows, as near as codes come."""
        table = self.table
        rows, _ = table.stored()
        bounds = torch.searchsorted(rows, table.info.field_offsets.to(rows.device)).tolist()
        fields = sorted(range(len(bounds) - 1), key=lambda f: bounds[f] - bounds[f + 1])
        most = max(1, MATRIX_BYTES // (4 * table.embedding_dim**2))
        for field in fields:
            field_rows = rows[bounds[field] : bounds[field + 1]]
            for part in field_rows.split(most):
                if len(part):
                    self._step(part, field)

    def _step(self, rows: Tensor, field: int) -> None:
        table = self.table
        curvature, slope = self._measure(rows, field)
        kept = table.keep[rows].to(curvature.dtype)
        damping = DAMPING * curvature.diagonal(dim1=1, dim2=2).mean() + 1e-12
        curvature.diagonal(dim1=1, dim2=2).add_(damping)
        curvature *= kept[:, :, None] * kept[:, None, :]
        solvable = curvature + torch.diag_embed(1 - kept)
        wanted = table.decoded(rows).detach() - torch.linalg.solve(solvable, slope * kept)
        table.choose(rows, wanted, curvature)

    def _measure(self, rows: Tensor, field: int | None) -> tuple[Tensor, Tensor]:
        """Curvature (R, D, D) and slope (R, D) of the mean loss over the samples by some rows.

        Args:
            rows: ascending; of one ``field``, or of any when that is None.
        """
        recommender, table, dim = self.recommender, self.table, self.table.embedding_dim
        place = torch.full((table.num_embeddings,), len(rows), dtype=torch.int64, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        curvature = torch.zeros(len(rows) + 1, dim * dim, device=rows.device)
        slope = torch.zeros(len(rows) + 1, dim, device=rows.device)
        for number, (ids, targets) in enumerate(self.samples.chunks()):
            if self.before is not None:
                self.before(number)
            ids, targets = self.processes.share(ids, targets)
            with torch.no_grad():
                embeddings = recommender.read(ids)
            embeddings.requires_grad_()
            logits = recommender.logits_of(recommender.pooled(embeddings, ids), ids)
            (gradient,) = torch.autograd.grad(logits.sum(), embeddings)
            read, p = recommender.mapped(ids), torch.sigmoid(logits.detach())
            if field is not None:
                columns = [slot for slot, owner in enumerate(table.info.slots.owners) if owner == field]
                read, gradient = read[:, columns], gradient[:, columns]
            if table.level is not None:
                gradient = gradient * table.level[read]
            at = place[read].flatten()
            weighted = gradient * (p * (1 - p))[:, None, None]
            curvature.index_add_(
                0, at, (gradient[..., :, None] * weighted[..., None, :]).flatten(0, 1).flatten(1)
            )
            slope.index_add_(0, at, (gradient * (p - targets)[:, None, None]).flatten(0, 1))
        for total in (curvature, slope):
            self.processes.total(total)
        return curvature[:-1].view(-1, dim, dim) / len(self.samples), slope[:-1] / len(self.samples)


@torch.no_grad()
def rotate_to_codes(recommender: TableModel, code_dims: int) -> bool:
    """Rotate a table whose rows keep all dimensions to what codes are good at (`codebook.spread`), and its model too.

    Returns: False, and nothing is changed, where the model cannot be rotated.
    """
    table = recommender.embedding
    rows = (table.info.counts > 0).nonzero().squeeze(1).to(table.weight.device)
    weight = table.info.counts.to(rows.device)[rows].sqrt()
    rotation = spread(table.weight[rows], weight, code_dims)
    rotated = recommender.rotate(rotation)
    if rotated:
        table.weight.copy_(table.weight @ rotation)
    return rotated


class CodeStages:
    """When the values of a training become codes, and how they are chosen from then on.

    With ``code_choice: nearest`` training goes on straight through. With ``loss`` codes are chosen by `CodeSearch`
    when they begin and before each epoch after that, and the axes of the table are rotated half way to the beginning,
    to what codes are good at (`codebook.spread`): rows that lose something by it have the other half to make up for it.
    Where small rows would lose too much, axes stay.

    Args:
        recommender: with a table of codes.
        settings: of the training.
        codes: how codes are chosen.
        train: the training split.
        teacher: as in `Samples`.
        seed: of the samples.
        processes: that share batches.
        levels: changes the level of an elastic table, whose axes are not rotated; None for another.
    """

    def __init__(
        self,
        recommender: Recommender,
        settings: TrainConfig,
        codes: Codes,
        train: Batches,
        teacher: Teacher | None,
        seed: int,
        processes: Processes = ALONE,
        levels: Callable[[int], None] | None = None,
    ) -> None:
        assert recommender.embedding.learns_codes, "a table without codes"
        self.recommender, self.table = recommender, cast(CodedEmbedding, recommender.embedding)
        self.train, self.teacher, self.seed = train, teacher, seed
        self.processes, self.levels = processes, levels
        self.searched = codes.code_choice == "loss"
        self.table.straight_through = not self.searched
        self.free_rate = settings.learning_rate
        self.code_rate = codes.code_learning_rate or CODE_RATE * settings.learning_rate
        self.steps = len(train) * settings.epochs
        self.start = min(codes.code_start * self.steps, self.steps - 1)
        """The step from which on values are codes: the last one at the latest."""
        self._samples: Samples | None = None

    def rate(self, step: int) -> tuple[float, float, float]:
        """The learning rate a schedule starts from, and the steps from which and to which it runs."""
        if not self.searched:
            return self.free_rate, 0.0, self.steps
        if step < self.start:
            return self.free_rate, 0.0, self.start
        return self.code_rate, self.start, self.steps

    def is_due(self, step: int) -> bool:
        """Whether `at` does something before a step."""
        begins = not self.table.is_final and step >= self.start
        sweeps = self.searched and self.table.is_final and step % len(self.train) == 0
        return begins or sweeps or self._rotates(step)

    def _rotates(self, step: int) -> bool:
        if not self.searched or self.levels is not None or self.table.is_rotated:
            return False
        return step == int(self.start) // 2 and step < self.start

    def at(self, step: int) -> bool:
        """What is due before a step; says whether axes were rotated."""
        if self._rotates(step):
            rotation = self.table.spread()
            rotated = self.table.lost_by(rotation) < ROTATION_LOSS and self.recommender.rotate(rotation)
            if rotated:
                self.table.rotate(rotation)
            return rotated
        with self.processes.same_draws(step):
            if not self.searched:
                self.table.begin_codes()
            else:
                self._search()
        return False

    def _search(self) -> None:
        if self._samples is None:
            self._samples = Samples(self.train, self.teacher, self.seed)
        self.recommender.eval()
        search = CodeSearch(self.recommender, self._samples, self.processes, self.levels)
        if self.table.is_final:
            search.sweep()
        else:
            search.begin()
        self.recommender.train()


def code_stages(store: Store) -> MakeStages:
    """What makes `CodeStages` of a recommender whose values become codes, as a store has them; None of another."""

    def make(
        recommender: Recommender,
        settings: TrainConfig,
        train: Batches,
        teacher: Teacher | None,
        seed: int,
        processes: Processes = ALONE,
        levels: Callable[[int], None] | None = None,
    ) -> CodeStages | None:
        if store.codes is None or not recommender.embedding.learns_codes:
            return None
        return CodeStages(recommender, settings, store.codes, train, teacher, seed, processes, levels)

    return make
