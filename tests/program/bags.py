"""A shop whose people have tags and whose films have genres, several each, and a year, which is a number."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ondevice.data import Catalog, Dataset, EncodedSplit, Field, Label, Schema
from ondevice.forms.base import Form
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo, table_info
from tests.vocabularies import fitted

NUM_USERS, NUM_FILMS = 30, 40
TAGS = ["night", "family", "loud", "slow"]
GENRES = ["Drama", "Comedy", "Action", "Film-Noir", "Short"]


def schema() -> Schema:
    """Each pooling but one on the item's side."""
    fields = (
        Field("user", "context", "integer"),
        Field("tags", "context", "string", slots=3, separator=",", pooling="sum"),
        Field("film", "item", "integer"),
        Field("genres", "item", "string", slots=3, separator="|"),
        Field("year", "item", "number", buckets=4),
        Field("moods", "item", "integer", slots=2, pooling="sqrt"),
    )
    return Schema("bags", fields, Label("liked"), item_key="film")


def dataset(num_rows: int = 300) -> Dataset:
    """Encoded rows of a described schema, whose first two have every field."""
    random = np.random.default_rng(0)

    def some(values: list[Any], most: int) -> list[Any]:
        return random.permutation(values)[: random.integers(0, most + 1)].tolist()

    films = [
        {
            "film": 7 * (i + 1),
            "genres": some(GENRES, 4) if i else ["Drama", "Comedy"],
            "year": int(random.integers(1930, 2000)) if i % 9 else None,
            "moods": some([1, 2, 3], 2) if i else [1],
        }
        for i in range(NUM_FILMS)
    ]
    people = [{"user": u + 1, "tags": some(TAGS, 3) if u else ["night"]} for u in range(NUM_USERS)]
    of, by = random.integers(0, NUM_FILMS, num_rows), random.integers(0, NUM_USERS, num_rows)
    of[:2], by[:2], films[0]["year"] = 0, 0, 1950
    rows = [{**people[u], **films[f]} for u, f in zip(by, of, strict=True)]
    described = schema()
    vocabulary = fitted(described.fields, [[row[name] for row in rows] for name in described.names])
    described = Schema("bags", vocabulary.fields, described.label, described.item_key)
    known = set(described.names)
    ids = np.stack([vocabulary.encode_row({k: v for k, v in row.items() if k in known}) for row in rows])
    items = [{k: v for k, v in film.items() if k in known} for film in films]
    catalog = Catalog(
        np.stack([vocabulary.encode_row(film)[list(described.item_columns)] for film in items]).astype(
            np.int32
        ),
        [film["film"] for film in films],
        [f"Film {film['film']}" for film in films],
        items,
    )
    split = EncodedSplit(ids.astype(np.int32), (random.random(num_rows) < 0.5).astype(np.uint8))
    counts = np.bincount(ids.ravel(), minlength=vocabulary.num_embeddings)
    return Dataset(described, vocabulary, counts, split, split, split, "0" * 64, catalog)


def info(data: Dataset) -> TableInfo:
    return table_info(
        data.vocabulary.field_offsets, data.counts, data.vocabulary.key_texts, data.schema.slots
    )


def forms(data: Dataset) -> list[Form]:
    """Random sizes; some tags, genres and unknown values keep nothing."""
    generator = torch.Generator().manual_seed(0)
    count = data.vocabulary.num_embeddings
    sizes = torch.tensor([0, 2, 4, 6])[torch.randint(0, 4, (count,), generator=generator)]
    first = (torch.rand(count, generator=generator) < 0.6).long()
    for f, field in enumerate(data.schema.fields):
        if field.slots > 1:
            begin = int(data.vocabulary.field_offsets[f])
            sizes[begin + 1 : begin + 3] = torch.tensor([0, 4])
            first[begin + 1] = 0
            if f == 1:
                sizes[begin] = first[begin] = 0
    return [Sizes(sizes, 8), Sizes(first, 1)]
