"""Codes of items chosen by what they do to the softmax over all items, as `code_search` does it for rows of a log.

An item's embedding e_i is read twice: where items are ranked, and in histories. With q the softmax of a place, t what
is to be learnt there, and u the user's vector,

- as a ranked item it has the slope Σ (q_i − t_i)·u and the curvature Σ q_i·u·uᵀ, which is not below that of all items
  together: the Hessian of a softmax, diag(q) − q·qᵀ, is at most diag(q);
- in histories it has the slope Σ g, g the gradient of the loss by what is read there, and the curvature Σ ĝ·ĝᵀ, ĝ the
  same gradient with targets that are drawn from q (Fisher's matrix, as Amari 1998).

All rows step at once, and rows that occur seldom fit what little is measured of them: a sweep is taken back, or halved,
where it does not lower the loss at places that it was not measured on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor

from ondevice.config.stores import Store
from ondevice.forms.codes import CodedEmbedding
from ondevice.forms.rows import lookup
from ondevice.methods.code_search import DAMPING, CodeSearch, CodeStages
from ondevice.methods.gains import directions_of
from ondevice.models.sequences.places import gaps_of, items_of, with_gaps
from ondevice.next_item import NextItemRecommender
from ondevice.training.made_up import made_up
from ondevice.training.processes import ALONE, Processes
from ondevice.training.rankings import RankingTeachers
from ondevice.training.softmax import Taught, with_bias
from ondevice.training.stages import MakeStages
from ondevice.training.windows import Windows

SAMPLE_PLACES = 45_000
"""Places of windows that codes are chosen on."""
JUDGED = 3  # of so many batches one measures nothing: there it is seen whether a step helps
KEPT_BYTES = 512 << 20
"""Of what teachers say at these places: below it they are asked once."""
PLACES_AT_ONCE = 1024
PLACES_OF_A_LOSS = 256  # of which nothing but a loss is computed: scores then stay in a cache
SHARES = (1.0, 0.5, 0.25)
"""Of a Newton step that are tried, one after the other."""


class WindowSamples:
    """Windows, and what is to be learnt at their places.

    Args:
        windows: of the training split.
        teachers: whose rankings are learnt; None for targets alone.
        seed: of the draws.
        pairs: windows that are made up for each real one where nobody teaches.
    """

    def __init__(
        self, windows: Windows, teachers: RankingTeachers | None, seed: int, pairs: float = 0.0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.batches: list[tuple[Tensor, Tensor, Taught | Tensor | None]] = []
        self.num_places = 0
        for _, items, lengths in windows.epoch(seed):
            whole, real = items, len(items)
            if teachers is not None:
                whole, _ = teachers.extended(items, lengths, generator)
            elif pairs:
                more, _ = made_up(items, lengths, round(pairs * real), generator)
                whole = torch.cat([items, more])
            whole = with_gaps(whole, windows.gaps)
            histories, following = whole[:, :-1], whole[:, 1:]
            present = histories != 0
            targets, number = items_of(following[present]) - 1, int(present.sum())
            taught: Taught | Tensor | None = None
            if teachers is not None:
                taught = teachers.taught(histories, present, real, 0)
                table = taught.teachers[0][1]
                if SAMPLE_PLACES * len(table) * table.element_size() <= KEPT_BYTES:
                    parts = (
                        taught.targets(
                            begin, begin + PLACES_AT_ONCE, targets[begin : begin + PLACES_AT_ONCE, None]
                        )
                        for begin in range(0, number, PLACES_AT_ONCE)
                    )
                    taught = torch.cat(list(parts))
            self.batches.append((histories, targets, taught))
            self.num_places += number
            if self.num_places >= SAMPLE_PLACES:
                break

    def divided(self) -> tuple[WindowSamples, WindowSamples]:
        """Those that steps are measured on, and the third that they are judged on; all twice where they are few."""
        if len(self.batches) < JUDGED:
            return self, self
        parts = []
        for is_judged in (False, True):
            part = copy.copy(self)
            part.batches = [b for n, b in enumerate(self.batches) if (n % JUDGED == JUDGED - 1) == is_judged]
            part.num_places = sum(len(targets) for _, targets, _ in part.batches)
            parts.append(part)
        return parts[0], parts[1]

    def __len__(self) -> int:
        return self.num_places

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Taught | Tensor | None]]:
        return iter(self.batches)


def _wanted(taught: Taught | Tensor | None, begin: int, end: int, targets: Tensor, num_items: int) -> Tensor:
    """t of some places, (end − begin, I)."""
    target = targets[begin:end, None]
    if isinstance(taught, Tensor):
        return taught[begin:end].float()
    if taught is not None:
        return taught.targets(begin, end, target).float()
    return torch.zeros(end - begin, num_items, device=targets.device).scatter_(1, target, 1.0)


@torch.no_grad()
def mean_loss(
    recommender: NextItemRecommender, samples: WindowSamples, kind: torch.dtype = torch.bfloat16
) -> float:
    """Mean cross entropy over the places of samples, of a recommender in evaluation; products are of a ``kind``."""
    table, total = with_bias(*recommender.item_vectors(), kind), 0.0
    for histories, targets, taught in samples:
        users = with_bias(recommender.user_vectors(histories)[histories != 0], 1.0, kind)
        for begin in range(0, len(users), PLACES_OF_A_LOSS):
            scores = (users[begin : begin + PLACES_OF_A_LOSS] @ table.T).float()
            wanted = _wanted(taught, begin, begin + len(scores), targets, len(table))
            total += float((scores.logsumexp(1) - torch.linalg.vecdot(wanted, scores)).double().sum())
    return total / len(samples)


def measure_items(
    recommender: NextItemRecommender,
    samples: WindowSamples,
    generator: torch.Generator,
    kind: torch.dtype = torch.bfloat16,
) -> tuple[Tensor, Tensor]:
    """Curvature (1 + I, D, D) and slope (1 + I, D) of the mean loss by the embedding of each id.

    Args:
        recommender: in evaluation.
        samples: what the loss is measured on.
        generator: of the targets that are drawn.
        kind: of products; their sums are float32.
    """
    with torch.no_grad():
        table, (_, bias) = recommender.rows(), recommender.item_vectors()
    items, dim = table[1:], table.shape[1]
    low, asked = items.to(kind), with_bias(items, bias, kind)
    upper = torch.triu_indices(dim, dim, device=table.device)
    ranked = torch.zeros(len(items), upper.shape[1], device=table.device)
    read = torch.zeros(len(table), dim * dim, device=table.device)
    slope = torch.zeros_like(table)
    for histories, targets, taught in samples:
        present, items_read = histories != 0, items_of(histories)
        embeddings = lookup(table, items_read).requires_grad_()
        users = recommender.model(embeddings, present, gaps_of(histories))[present]
        by_user, by_drawn = torch.empty_like(users), torch.empty_like(users)
        for begin in range(0, len(users), PLACES_AT_ONCE):
            part = users.detach()[begin : begin + PLACES_AT_ONCE]
            end = begin + len(part)
            q = (with_bias(part, 1.0, kind) @ asked.T).float().softmax(1)
            drawn = torch.multinomial(q.cpu(), 1, generator=generator)[:, 0].to(q.device)
            few = q.to(kind, copy=True)
            by_drawn[begin:end] = (few @ low).float() - items[drawn]
            ranked += few.T @ (part[:, upper[0]] * part[:, upper[1]]).to(kind)
            errors = q.sub_(_wanted(taught, begin, end, targets, len(items))).to(kind)
            by_user[begin:end] = (errors @ low).float()
            slope[1:] += (errors.T @ part.to(kind)).float()
        (truly,) = torch.autograd.grad(users, embeddings, by_user, retain_graph=True)
        (fisher,) = torch.autograd.grad(users, embeddings, by_drawn)
        ids = items_read.flatten()
        slope.index_add_(0, ids, truly.flatten(0, 1))
        flat = fisher.flatten(0, 1)
        read.index_add_(0, ids, (flat[:, :, None] * flat[:, None, :]).flatten(1))
    curvature = read.view(-1, dim, dim)
    curvature[1:, upper[0], upper[1]] += ranked
    beside = upper[0] != upper[1]
    curvature[1:, upper[1, beside], upper[0, beside]] += ranked[:, beside]
    curvature[0], slope[0] = 0, 0  # of the unknown item, which is nowhere
    return curvature / len(samples), slope / len(samples)


def item_gains(recommender: NextItemRecommender, samples: WindowSamples, num_dims: int, seed: int) -> Tensor:
    """The saliency of the leading dimensions of each item, in a basis of all items: as `gains.measure_gains`.

    Shape: (1 + I, num_dims).
    """
    curvature, _ = measure_items(recommender.eval(), samples, torch.Generator().manual_seed(seed))
    weight = recommender.embedding.table()
    seen = recommender.info.counts.to(weight.device)[:, None].double()
    second = (weight.double() * seen).T @ weight.double()
    directions, onto = directions_of(curvature.sum(0)[None].double(), second[None], num_dims)
    along = torch.einsum("nij,ik,jk->nk", curvature, directions[0], directions[0])
    return 0.5 * along.clamp(min=0) * (weight @ onto[0]).square()


class NextItemCodeSearch(CodeSearch):
    """`CodeSearch` of a table of items.

    Args:
        recommender: whose embedding table it is, in evaluation mode.
        samples: what the loss is measured on.
        seed: of the targets that are drawn.
    """

    def __init__(self, recommender: NextItemRecommender, samples: WindowSamples, seed: int) -> None:
        assert recommender.embedding.learns_codes, "a table without codes"
        self.model, self.table = recommender, cast(CodedEmbedding, recommender.embedding)
        (self.windows, self.judged), self.generator = samples.divided(), torch.Generator().manual_seed(seed)

    def loss(self) -> float:
        return mean_loss(self.model, self.judged)

    def sweep(self) -> None:
        """A Newton step of all items, as near as codes come: the largest share of it that lowers the loss, or none."""
        table = self.table
        rows, _ = table.stored()
        curvature, slope = self._measure(rows, None)
        kept = table.keep[rows].to(curvature.dtype)
        damping = DAMPING * curvature.diagonal(dim1=1, dim2=2).mean() + 1e-12
        curvature.diagonal(dim1=1, dim2=2).add_(damping)
        curvature *= kept[:, :, None] * kept[:, None, :]
        step = torch.linalg.solve(curvature + torch.diag_embed(1 - kept), slope * kept)
        before, codes, values = self.loss(), table.codes.clone(), table.decoded(rows).detach()
        for share in SHARES:
            table.choose(rows, values - share * step, curvature)
            if self.loss() < before:
                return
            table.codes.copy_(codes)

    def _measure(self, rows: Tensor, field: int | None) -> tuple[Tensor, Tensor]:
        curvature, slope = measure_items(self.model, self.windows, self.generator)
        return curvature[rows], slope[rows]


class NextItemStages(CodeStages):
    """`CodeStages` of a training of the next item."""

    def _search(self) -> None:
        recommender = cast(NextItemRecommender, self.recommender)
        if self._samples is None:
            windows, teachers = cast(Windows, self.train), cast("RankingTeachers | None", self.teacher)
            self._samples = WindowSamples(windows, teachers, self.seed)  # type: ignore[assignment]
        recommender.eval()
        search = NextItemCodeSearch(recommender, cast(WindowSamples, self._samples), self.seed)
        if self.table.is_final:
            search.sweep()
        else:
            search.begin()
        recommender.train()


def next_item_stages(store: Store) -> MakeStages:
    """`code_stages` of trainings of the next item."""

    def make(
        recommender: NextItemRecommender,
        settings: object,
        windows: Windows,
        teachers: RankingTeachers | None,
        seed: int,
        processes: Processes = ALONE,
        levels: Callable[[int], None] | None = None,
    ) -> NextItemStages | None:
        if store.codes is None or not recommender.embedding.learns_codes:
            return None
        return NextItemStages(recommender, settings, store.codes, windows, teachers, seed)  # type: ignore[arg-type]

    return make  # type: ignore[return-value]
