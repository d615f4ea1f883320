"""Where a model of ratings puts what people liked, among all items: the metrics of the next item for models of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ondevice.data import Dataset
from ondevice.data.schema import Schema
from ondevice.errors import ConfigError
from ondevice.recommender import Recommender
from ondevice.training.ranking import Lists, Ranking, rank_all

MOST_MOMENTS = 1_000
"""Moments that are ranked where a schema has histories: each has a context of its own."""
ROWS = 8_192  # that are scored together


@dataclass(frozen=True)
class Contexts:
    """Contexts in which something of a split was liked, and the catalogue that is ranked in them.

    Where a schema has histories, each positive row is a moment of its own, and what the histories hold was seen; beyond
    `MOST_MOMENTS` of them as many are taken at equal distances. Otherwise there is one context for each person, that of
    the first positive row, with all that the person liked in the split as targets; what training and the splits before
    have of the person, liked or not, was seen. A person is who has the same value of the schema's ``user_key``, or
    where that is no field the same values of all context fields of one value without a transform.

    Args:
        rows: ids (Q, S) of a row in each context.
        items: ids (I, Si) of the items' slots: of those that training knows.
        columns: where these stand in a row.
        targets: what was liked, as places of items; −1 where an item is unknown.
        seen: what is left out.
        num_positive: positive rows of the split.
    """

    rows: Tensor
    items: Tensor
    columns: list[int]
    targets: Lists
    seen: Lists
    num_positive: int

    @classmethod
    def of(cls, dataset: Dataset, split: str) -> Contexts:
        """The contexts of a split.

        Raises: ConfigError: when the data name no item, or nobody liked any.
        """
        schema, catalog = dataset.schema, dataset.catalog
        check_ranked(schema)
        if catalog is None:
            raise ConfigError(
                f"run.rank: data set '{schema.name}' has no catalog of its items; use run.rank=false"
            )
        field = schema.names.index(str(schema.item_key))
        begin, end = (int(each) for each in dataset.vocabulary.field_offsets[field : field + 2])
        (column,) = schema.slots.of([field])
        keys = catalog.ids[:, schema.item_columns.index(column)].astype(np.int64)
        known = np.flatnonzero(keys != begin)
        place_of = np.full(end - begin, -1)
        place_of[keys[known] - begin] = np.arange(len(known))
        rows = dataset.split(split)
        positive = np.flatnonzero(np.asarray(rows.labels) == 1)
        if not len(positive):
            raise ConfigError(f"run.rank: nobody liked anything in the {split} split; use run.rank=false")
        count = len(positive)
        if schema.histories:
            if count > MOST_MOMENTS:
                positive = positive[np.linspace(0, count - 1, MOST_MOMENTS).astype(np.int64)]
            asked = np.asarray(rows.ids[positive]).astype(np.int64)
            seen = _lists(*_held(schema, asked, place_of, begin), len(asked))
            targets = Lists.single(torch.from_numpy(place_of[asked[:, column] - begin]))
        else:
            chosen = np.asarray(rows.ids[positive]).astype(np.int64)
            person = _person_columns(schema)
            people, first, who = np.unique(chosen[:, person], axis=0, return_index=True, return_inverse=True)
            asked, who = chosen[first], who.reshape(-1)
            targets = _lists(who, place_of[chosen[:, column] - begin], len(asked))
            before = {"valid": ["train"], "test": ["train", "valid"]}[split]
            seen = _lists(*_done(dataset, before, people, person, column, place_of, begin), len(asked))
        items = torch.from_numpy(catalog.ids[known].astype(np.int64))
        return cls(torch.from_numpy(asked), items, list(schema.item_columns), targets, seen, count)


def check_ranked(schema: Schema) -> None:
    """Whether a schema's catalogue can be ranked.

    Raises: ConfigError: when it names no item, or nothing that an item is ranked for.
    """
    if schema.item_key is None or not schema.context_fields:
        raise ConfigError(
            f"run.rank: schema '{schema.name}' names no item (item_key) or has no field of side context, so there is "
            "nothing to rank; use run.rank=false"
        )


@torch.no_grad()
def rank_rows(recommender: Recommender, contexts: Contexts) -> Ranking:
    """Where the targets stand among all items, for a recommender in evaluation mode."""
    device, items = recommender.bias.device, contexts.items
    at_once = max(1, ROWS // len(items))

    def scores_of(begin: int, end: int) -> Tensor:
        parts = []
        for some in contexts.rows[begin:end].split(at_once):
            rows = some.repeat_interleave(len(items), 0)
            rows[:, contexts.columns] = items.repeat(len(some), 1)
            scores = torch.cat([recommender(part.to(device)) for part in rows.split(ROWS)])
            parts.append(scores.float().view(len(some), -1))
        return torch.cat(parts)

    return rank_all(scores_of, contexts.targets, contexts.seen, len(items))


def _person_columns(schema: Schema) -> list[int]:
    """The columns that say whose a row is."""
    if schema.user_key in schema.names:
        return list(schema.slots.of([schema.names.index(schema.user_key)]))
    fields = [schema.fields[f] for f in schema.context_fields]
    named = [f for f in fields if f.names_values and f.transform is None] or fields
    return list(schema.slots.of([schema.names.index(field.name) for field in named]))


def _held(
    schema: Schema, rows: np.ndarray, place_of: np.ndarray, begin: int
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows, and places of the items that their histories hold."""
    columns = [
        column
        for f, field in enumerate(schema.fields)
        if field.of == schema.item_key
        for column in schema.slots.of([f])
    ]
    places = place_of[rows[:, columns] - begin]
    owners = np.repeat(np.arange(len(rows)), len(columns)).reshape(places.shape)
    return owners[places >= 0], places[places >= 0]


def _done(
    dataset: Dataset,
    splits: list[str],
    people: np.ndarray,
    person: list[int],
    column: int,
    place_of: np.ndarray,
    begin: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of people, and places of the items that some splits have of them."""
    number = {tuple(values): at for at, values in enumerate(people.tolist())}
    owners, places = [], []
    for name in splits:
        ids = dataset.split(name).ids
        others, who = np.unique(np.asarray(ids[:, person]), axis=0, return_inverse=True)
        numbers = np.array([number.get(tuple(values), -1) for values in others.tolist()], dtype=np.int64)
        owner = numbers[who.reshape(-1)] if len(numbers) else np.zeros(0, dtype=np.int64)
        place = place_of[np.asarray(ids[:, column]).astype(np.int64) - begin]
        chosen = (owner >= 0) & (place >= 0)
        owners.append(owner[chosen])
        places.append(place[chosen])
    return np.concatenate(owners), np.concatenate(places)


def _lists(owners: np.ndarray, items: np.ndarray, count: int) -> Lists:
    """The lists of ``count`` owners."""
    order = np.argsort(owners, kind="stable")
    offsets = np.append(0, np.cumsum(np.bincount(owners, minlength=count)))
    return Lists(torch.from_numpy(items[order].astype(np.int64)), torch.from_numpy(offsets.astype(np.int64)))
