"""The items of a source in its store: their ids, keys, titles and raw values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.dataset import Catalog
from ondevice.data.schema import Field, Schema, number_of
from ondevice.data.vocabulary import Vocabulary


def write_catalog(
    folder: Path,
    schema: Schema,
    items: Sequence[dict[str, Any]],
    titles: Mapping[Any, str],
    vocabulary: Vocabulary,
) -> None:
    """Write items into a store, their keys ascending; of several rows with one key the first.

    Args:
        folder: the store.
        schema: names the item.
        items: raw values of the item-side fields by name.
        titles: by raw key.
        vocabulary: of the store.
    """
    key_field = schema.named(str(schema.item_key))
    by_key: dict[Any, dict[str, Any]] = {}
    for row in items:
        key = key_field.key(row[key_field.name])
        if key is not None:
            by_key.setdefault(key, row)
    keys = sorted(by_key)
    positions = schema.item_fields
    raw = [
        {f.name: _typed(f, by_key[key][f.name]) for f in schema.fields if f.side == "item"} for key in keys
    ]
    ids = [vocabulary.encode_values(f, [row[schema.names[f]] for row in raw]) for f in positions]
    title_of = {key_field.key(item): title for item, title in titles.items()}
    item_titles = [title_of.get(key, "") for key in keys]
    save_catalog(folder, Catalog(np.concatenate(ids, axis=1).astype(np.int32), keys, item_titles, raw))


def save_catalog(folder: Path, catalog: Catalog) -> None:
    """Write a catalog beside the rows of a store."""
    np.save(folder / "catalog.ids.npy", catalog.ids, allow_pickle=False)
    content = {"keys": catalog.keys, "titles": catalog.titles, "raw": catalog.raw}
    (folder / "catalog.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def read_catalog(folder: Path) -> Catalog | None:
    """What `save_catalog` wrote; None where there is none."""
    if not (folder / "catalog.json").exists():
        return None
    content = json.loads((folder / "catalog.json").read_text(encoding="utf-8"))
    ids = np.load(folder / "catalog.ids.npy", allow_pickle=False)
    return Catalog(ids, content["keys"], content["titles"], content["raw"])


def _typed(field: Field, raw: Any) -> Any:
    """A raw value as JSON has it: canonical keys, or the text or number that a transform or a bucket takes."""
    if field.slots > 1:
        return list(field.kept(raw)) or None
    if field.transform is None and field.kind != "number":
        return field.key(raw)
    if field.transform == "hex":
        return field.raw(field.key(raw))
    number = number_of(raw)
    return int(number) if number is not None and number.is_integer() else number
