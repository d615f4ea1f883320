"""From what a search found to the sizes that are retrained and shipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ondevice.config.sections import RetrainConfig
from ondevice.errors import UserError, nearest
from ondevice.forms.base import Codes, Form, Mask, Ranking, SharedMap, Sizes
from ondevice.forms.table import EmbeddingMethod, TableInfo
from ondevice.methods.sizes.ranked import Ranked


def competing(tables: list[EmbeddingMethod]) -> list[EmbeddingMethod]:
    """The tables that share the budget: those whose method scores values, or all when none does.

    First-order weights that were given a method of their own without scores (``uniform``) are neither
    pruned nor counted, as in the protocol of the PEP paper's code.
    """
    scoring = [table for table in tables if table.scores() is not None]
    return scoring or tables


def forms_at(
    tables: list[EmbeddingMethod], target: int, removed: Tensor | None = None, first_order: bool = True
) -> list[Form]:
    """The forms of all tables, those that share the budget together at no more than ``target`` values.

    Methods that score values compete over one ranking; a rule sizes the embeddings and gives every row that
    keeps something its first-order weight.

    Args:
        tables: the embedding table, then the first-order one where there is one.
        target: most values to keep, over the tables that share the budget.
        removed: ids (N,) bool that will not be stored; shared rows, whose number nothing changes later, use what
            these leave.
        first_order: whether first-order weights are stored for each row; for shared rows, too.
    """
    scores = [table.scores() for table in tables]
    ranked = [s for s in scores if s is not None]
    if ranked:
        flat = torch.cat([s.flatten() for s in ranked])
        threshold = torch.zeros((), device=flat.device)
        if target < int((flat > 0).sum()):
            threshold = flat.kthvalue(flat.numel() - target).values
        return [
            Mask((s > threshold).cpu()) if s is not None else table.compact()
            for table, s in zip(tables, scores, strict=True)
        ]
    return _forms_by_rule(tables, target, removed, first_order)


def _forms_by_rule(
    tables: list[EmbeddingMethod], target: int, removed: Tensor | None, first_order: bool
) -> list[Form]:
    if isinstance(tables[0], Ranked):  # a ranking, from which the sizes for any target follow
        rows = torch.zeros(tables[0].num_embeddings, dtype=torch.int64)
        others = [Sizes(rows, 1) if isinstance(t, Ranked) else t.compact() for t in tables[1:]]
        return [tables[0].compact(), *others]

    def stored(forms: list[Form]) -> int:
        if not isinstance(forms[0], SharedMap):
            return sum(form.num_kept() for form in forms)
        own = forms if first_order else forms[:1]
        return sum((form if removed is None else form.without(removed)).num_kept() for form in own)

    low, high = 1, max(target, sum(table.weight.numel() for table in tables))
    best: list[Form] | None = None
    while low <= high:
        middle = (low + high) // 2
        try:
            forms = _rule_forms(tables, middle)
        except UserError:
            low = middle + 1
            continue
        if stored(forms) <= target:
            best, low = forms, middle + 1
        else:
            high = middle - 1
    if best is None:
        _rule_forms(tables, target)  # says what is wrong
        least = sum(form.num_kept() for form in _smallest_of_rule(tables))
        raise UserError(
            f"budget of {target} values: too small for the rows seen in training; the smallest is {least}"
        )
    return best


def _smallest_of_rule(tables: list[EmbeddingMethod]) -> list[Form]:
    """The forms of the fewest values that a rule can do with."""
    low, high = 0, sum(table.weight.numel() for table in tables)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _rule_forms(tables, middle)
        except UserError:
            low = middle
        else:
            high = middle
    return _rule_forms(tables, high)


def _rule_forms(tables: list[EmbeddingMethod], target: int) -> list[Form]:
    form = tables[0].compact(target)
    return [form, *(Sizes((form.row_sizes() > 0).long(), 1) for _ in tables[1:])]


def shipped_sizes(
    forms: list[Form],
    target: int,
    *,
    max_size: int | None = None,
    size_step: int = 1,
    share: bool = True,
) -> list[Form]:
    """Per-row counts, or a ranking, as leading dimensions in multiples of ``size_step``: at most ``target`` values.

    Counts above ``max_size`` are cut, and all are scaled by a common factor so that the budget is used; what
    the steps between sizes leave of it goes to the rows that the next larger factor would promote. With
    ``share`` the first-order weights count towards the target, and every row that keeps an embedding has its
    own: its place in the first-order table and its key are stored anyway.

    Raises: UserError: when the target leaves nothing for the embeddings.
    """
    embedding, others = forms[0], forms[1:]

    def complete(sizes: Sizes) -> list[Form]:
        if not share:
            return [sizes, *others]
        alive = (sizes.sizes > 0).long()
        return [sizes, *(Sizes(torch.maximum(alive, other.row_sizes()), 1) for other in others)]

    def room(sizes: Sizes) -> int:
        return target - sum(form.num_kept() for form in complete(sizes)[: None if share else 1])

    if isinstance(embedding, Ranking):
        return complete(
            _most(embedding.staircase(size_step, max_size), target, lambda sizes: room(sizes) >= 0)
        )
    counts = embedding.row_sizes()
    limit = min(max_size or embedding.dim, embedding.dim)
    classes = sorted({*range(size_step, limit + 1, size_step), limit})

    def at(scale: float) -> Sizes:
        scaled = (counts * scale).round().long().clamp(max=limit)
        sizes = Sizes(torch.where(counts > 0, scaled.clamp(min=1), 0), embedding.dim)
        return sizes.snapped(classes) if size_step > 1 else sizes

    alone = sum(other.num_kept() for other in others) if share else 0
    row = classes[0] + (len(others) if share else 0)
    if room(at(0.0)) < 0:  # the smallest size for every row is too much: the rows of the smallest counts go
        rows = max(0, target - alone) // row
        largest = torch.argsort(counts, descending=True, stable=True)[:rows]
        counts = torch.zeros_like(counts).index_copy(0, largest, counts[largest])
    if int(counts.sum()) == 0:
        raise UserError(
            f"budget of {target} values: nothing is left for the embeddings; allow more: the smallest is "
            f"{alone + row}, {row} values for a first row beside {alone} first-order weights that were found"
        )
    low, high = 0.0, float(limit)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if room(at(middle)) >= 0 else (low, middle)
    fitting = at(low)
    steps = at(high).sizes - fitting.sizes
    candidates = (steps > 0).nonzero().squeeze(1)
    candidates = candidates[torch.argsort(counts[candidates], descending=True, stable=True)]
    promoted = candidates[steps[candidates].cumsum(0) <= room(fitting)]
    return complete(Sizes(fitting.sizes.index_add(0, promoted, steps[promoted]), embedding.dim))


def _most(sizes_of: Callable[[int], Sizes], target: int, fits: Callable[[Sizes], bool]) -> Sizes:
    """The sizes for the most values that fit."""
    low, high = 0, target
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(sizes_of(middle)) else (low, middle - 1)
    sizes = sizes_of(low)
    if sizes.num_kept() == 0:
        raise UserError(f"budget of {target} values: nothing is left for the embeddings; allow more")
    return sizes


def coded(form: Form, code_dims: int, max_dim: int) -> Codes:
    """Sizes that are multiples of ``code_dims`` as cells of one byte each.

    Args:
        form: the sizes, in stored values.
        code_dims: dimensions of a cell.
        max_dim: the largest dimension of a row: what a size is above it refines the row from its first cell on.
    """
    sizes = form.row_sizes()
    widest = -(-max(1, int(sizes.max())) // code_dims) * code_dims
    return Codes(sizes, min(widest, max_dim), code_dims)


def all_codes(
    info: TableInfo, skip: Sequence[int], settings: RetrainConfig, embedding_dim: int
) -> tuple[Sizes, Codes]:
    """All dimensions of every row that training has seen, as free values and as codes of all levels.

    Args:
        info: offsets and counts.
        skip: as in `skipped`.
        settings: say how many dimensions a row and a code have, and how often codes say them.
        embedding_dim: what dimensions of a row may not exceed, either.
    """
    assert settings.code_dims is not None
    seen = ((info.counts > 0) & ~skipped(info, skip)).long()
    dim = min(settings.max_size or embedding_dim, embedding_dim) // settings.code_dims * settings.code_dims
    return Sizes(seen * dim, dim), Codes(seen * dim * settings.code_levels, dim, settings.code_dims)


def unstored_removed(forms: list[Form], info: TableInfo, skip: Sequence[int] = ()) -> list[Form]:
    """The forms without rows that training never saw, and without those of the fields ``skip``."""
    removed = (info.counts == 0) | skipped(info, skip)
    return [form.without(removed) for form in forms]


def field_places(names: Sequence[str], skip: Sequence[str]) -> tuple[int, ...]:
    """Places of the fields to skip among all fields.

    Raises: UserError: for a name that is no field, or when nothing would be left.
    """
    for name in skip:
        if name not in names:
            raise UserError(f"search.skip_fields: '{name}' is not a field {nearest(name, names)}")
    if len(set(skip)) == len(names):
        raise UserError("search.skip_fields: names every field, so that nothing is left to store")
    return tuple(names.index(name) for name in skip)


def skipped(info: TableInfo, skip: Sequence[int]) -> Tensor:
    """Which ids belong to the fields ``skip``, (N,) bool."""
    return torch.isin(info.field_of(), torch.tensor(list(skip), dtype=torch.int64))


def skipped_id_map(info: TableInfo, skip: Sequence[int]) -> Tensor | None:
    """Each id, or its field's unknown id for the fields ``skip``; None when there are none."""
    if not skip:
        return None
    return torch.where(skipped(info, skip), info.unknown_of(), torch.arange(info.num_embeddings))
