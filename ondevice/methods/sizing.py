"""From what a search found to the sizes that are retrained and shipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from ondevice.config.stores import Codes as CodesStore
from ondevice.errors import ConfigError, nearest
from ondevice.forms.base import Form, SizeLimits
from ondevice.forms.codes import Codes
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.methods.base import Selection


def shipped_sizes(
    forms: Sequence[Selection],
    target: int,
    *,
    max_size: int | None = None,
    size_step: int = 1,
    share: bool = True,
) -> list[Form]:
    """Per-row counts, or a ranking, as leading dimensions in multiples of ``size_step``: at most ``target`` values.

    With ``share`` the first-order weights count towards the target, and every row that keeps an embedding has its
    own: its place in the first-order table and its key are stored anyway.

    Raises: BudgetTooSmall: when the target leaves nothing for the embeddings.
    """
    embedding, others = forms[0], forms[1:]

    def complete(sizes: Form) -> list[Form]:
        if not share:
            return [sizes, *cast(list[Form], others)]
        alive = (sizes.row_sizes() > 0).long()
        return [sizes, *(Sizes(torch.maximum(alive, other.row_sizes()), 1) for other in others)]

    def room(sizes: Form) -> int:
        return target - sum(form.num_kept() for form in complete(sizes)[: None if share else 1])

    limits = SizeLimits(
        target,
        room,
        max_size,
        size_step,
        per_row=len(others) if share else 0,
        beside=sum(other.num_kept() for other in others) if share else 0,
    )
    return complete(embedding.leading(limits))


def all_codes(
    info: TableInfo, skip: Sequence[int], store: CodesStore, embedding_dim: int
) -> tuple[Sizes, Codes]:
    """All dimensions of every row that training has seen, as free values and as codes of all levels.

    Args:
        info: offsets and counts.
        skip: as in `skipped`.
        store: says how many dimensions a row and a code have, and how many levels of codes a row.
        embedding_dim: what dimensions of a row may not exceed, either.
    """
    seen = ((info.counts > 0) & ~skipped(info, skip)).long()
    dim = min(store.max_size or embedding_dim, embedding_dim) // store.code_dims * store.code_dims
    return Sizes(seen * dim, dim), Codes(seen * dim * store.code_levels, dim, store.code_dims)


def unstored_removed(
    forms: Sequence[Selection], info: TableInfo, skip: Sequence[int] = ()
) -> list[Selection]:
    """The forms without rows that training never saw, and without those of the fields ``skip``."""
    removed = (info.counts == 0) | skipped(info, skip)
    return [form.without(removed) for form in forms]


def field_places(names: Sequence[str], skip: Sequence[str]) -> tuple[int, ...]:
    """Places of the fields to skip among all fields.

    Raises: ConfigError: for a name that is no field, or when nothing would be left.
    """
    for name in skip:
        if name not in names:
            raise ConfigError(f"compact.skip_fields: '{name}' is not a field {nearest(name, names)}")
    if len(set(skip)) == len(names):
        raise ConfigError("compact.skip_fields: names every field, so that nothing is left to store")
    return tuple(names.index(name) for name in skip)


def skipped(info: TableInfo, skip: Sequence[int]) -> Tensor:
    """Which ids belong to the fields ``skip``, (N,) bool."""
    return torch.isin(info.field_of(), torch.tensor(list(skip), dtype=torch.int64))


def skipped_id_map(info: TableInfo, skip: Sequence[int]) -> Tensor | None:
    """Each id, or its field's unknown id for the fields ``skip``; None when there are none."""
    if not skip:
        return None
    return torch.where(skipped(info, skip), info.unknown_of(), torch.arange(info.num_embeddings))
