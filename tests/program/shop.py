"""A made-up shop: people, films, and recommenders of every kind with random sizes, small enough to export."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ondevice.data import Catalog, Dataset, EncodedSplit, Field, Label, Schema, Vocabulary
from ondevice.forms.base import Form
from ondevice.forms.codes import CodedEmbedding, Codes
from ondevice.forms.mask import Mask
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.methods import METHODS
from ondevice.recommender import Recommender, rebuild

NUM_USERS, NUM_FILMS = 90, 60
GENRES = ["Drama", "Comedy", "Misérables", "Action|Drama", "Film-Noir"]
ZIPS = ["02138", "02139", "10001", "48067", "V1A 2B3", "55117-1234"]
OPTIONS: dict[str, dict[str, Any]] = {
    "deepfm": {"hidden": (16, 8)},
    "autoint": {"num_layers": 1, "head_dim": 8, "hidden": (8,)},
    "dcn": {"num_layers": 2, "rank": 4, "hidden": (8,)},
    **{name: {"hidden": (8,)} for name in ("widedeep", "dlrm", "din", "dumn")},
}
"""Each further linear layer takes a second to lower."""


def schema(item_first: bool = False) -> Schema:
    """Three context fields and two item fields; ``item_first`` mixes the sides."""
    context = [
        Field("user", "context", "integer"),
        Field("zip", "context", "string"),
        Field("hour", "context", "integer", transform="log_bucket", origin=1000.0),
    ]
    item = [Field("film", "item", "integer"), Field("genre", "item", "string")]
    fields = [item[0], context[0], context[1], item[1], context[2]] if item_first else [*context, *item]
    return Schema("shop", tuple(fields), Label("liked"), item_key="film")


def dataset(
    item_first: bool = False, num_rows: int = 400, num_users: int = NUM_USERS, num_films: int = NUM_FILMS
) -> Dataset:
    """Encoded rows; the last user and the last film were never seen in training."""
    random = np.random.default_rng(0)
    described = schema(item_first)
    known = {
        "user": np.arange(1, num_users),
        "zip": sorted(ZIPS),
        "hour": np.array(
            sorted({described.fields[described.names.index("hour")].key(1000 + s) for s in range(3000)})
        ),
        "film": np.arange(1, num_films) * 7,
        "genre": sorted(GENRES),
    }
    vocabulary = Vocabulary(described.fields, [known[name] for name in described.names])
    offsets = vocabulary.field_offsets
    ids = np.stack([random.integers(a, b, num_rows) for a, b in pairwise(offsets)], 1)
    # two rows that are known in every field, for golden cases
    ids[:2] = offsets[:-1] + 1 + np.arange(2)[:, None]
    labels = (random.random(num_rows) < 0.5).astype(np.uint8)
    films = [
        {"film": int(key), "genre": GENRES[i % 5]} for i, key in enumerate(np.arange(1, num_films + 1) * 7)
    ]
    places = described.item_fields
    catalog = Catalog(
        ids=np.stack(
            [vocabulary.encode_column(f, [film[described.names[f]] for film in films]) for f in places], 1
        ).astype(np.int32),
        keys=[film["film"] for film in films],
        titles=[f"Film {film['film']}" for film in films],
        raw=films,
    )
    split = EncodedSplit(ids.astype(np.int32), labels)
    counts = np.bincount(ids.ravel(), minlength=offsets[-1])
    return Dataset(described, vocabulary, counts, split, split, split, "0" * 64, catalog)


def info(data: Dataset) -> TableInfo:
    offsets, counts = torch.as_tensor(data.vocabulary.field_offsets), torch.as_tensor(data.counts)
    return TableInfo(offsets, counts, data.vocabulary.key_texts)


def drawn_sizes(draw: st.DataObject, most_ids: int, dim: int) -> tuple[np.ndarray, Tensor, Tensor]:
    """Offsets of one to four fields, and the sizes of their embeddings and of their first-order weights."""
    offsets = np.cumsum([0, *draw.draw(st.lists(st.integers(1, most_ids), min_size=1, max_size=4))])
    total = int(offsets[-1])

    def sizes(most: int) -> Tensor:
        return torch.tensor(draw.draw(st.lists(st.integers(0, most), min_size=total, max_size=total)))

    return offsets, sizes(dim), sizes(1)


def forms(data: Dataset, layout: str, seed: int = 0) -> list[Form]:
    """Random sizes in steps of 2, or positions, with rows that keep nothing and a pruned unknown row."""
    generator = torch.Generator().manual_seed(seed)
    count = int(data.vocabulary.num_embeddings)
    first = (torch.rand(count, generator=generator) < 0.6).long()
    if layout == "csr":
        kept = torch.rand(count, 6, generator=generator) < 0.3
        kept[0] = False
        first[0] = 0
        return [Mask(kept), Sizes(first, 1)]
    sizes = torch.tensor([0, 0, 2, 4, 6])[torch.randint(0, 5, (count,), generator=generator)]
    sizes[0] = first[0] = 0
    return [Sizes(sizes, 8), Sizes(first, 1)]


def coded_recommender(model: str, data: Dataset, code_dims: int = 2, levels: int = 1) -> Recommender:
    """Sizes of up to three cells that are codes, and first-order weights that are projections of the embeddings.

    With two levels rows have two cells, of which the third of the largest rows refines the first.
    """
    sizes = forms(data, "staircase")[0].row_sizes() // 2 * code_dims
    table_forms: list[Form] = [Codes(sizes, (3 if levels == 1 else 2) * code_dims, code_dims)]
    made = recommender(model, "staircase", data, table_forms=table_forms, projected=True)
    table = made.embedding
    assert isinstance(table, CodedEmbedding)
    table.begin_codes()
    with torch.no_grad():
        assert made.projection is not None
        made.projection.normal_(0, 0.5)
    return made.train().eval()


def hashed_recommender(model: str, data: Dataset, target: int = 200) -> Recommender:
    """People and films, of whom there are many, share rows by their hash."""
    table = METHODS["hashing"](info(data), 8, dim=4)
    form = table.compact(target)
    return recommender(model, "staircase", data, table_forms=[form, Sizes((form.row_sizes() > 0).long(), 1)])


def recommender(
    model: str,
    layout: str,
    data: Dataset,
    seed: int = 0,
    table_forms: list[Form] | None = None,
    projected: bool = False,
) -> Recommender:
    """A model with random weights, batch norm statistics and bias."""
    torch.manual_seed(seed)
    made = rebuild(
        info(data),
        model=model,
        model_options=OPTIONS.get(model, {}),
        forms=table_forms or forms(data, layout, seed),
        init_std=0.3,
        projected=projected,
    ).eval()
    with torch.no_grad():
        made.bias.fill_(0.25)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return made


def all_ids(data: Dataset, num_rows: int = 1000) -> Tensor:
    """Rows of ids in which every id of every field occurs, unknown and pruned ones too."""
    random = np.random.default_rng(1)
    bounds = data.vocabulary.field_offsets
    columns = []
    for a, b in pairwise(bounds):
        column = random.integers(a, b, num_rows)
        column[: b - a] = np.arange(a, b)
        columns.append(column)
    return torch.from_numpy(np.stack(columns, 1))
