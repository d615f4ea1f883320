"""The items of a source in its store: their ids, keys, titles and raw values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.dataset import Catalog
from ondevice.data.interactions import Interactions, item_rows
from ondevice.data.schema import Field, Schema, number_of
from ondevice.data.vocabulary import Vocabulary


def all_items(schema: Schema, interactions: Interactions) -> list[dict[str, Any]] | None:
    """One raw row per item of the source: as it gave them, or the first row of each."""
    if schema.item_key is None or interactions.items is not None:
        return interactions.items
    return item_rows(schema, interactions.columns)


def write_catalog(folder: Path, schema: Schema, interactions: Interactions, vocabulary: Vocabulary) -> None:
    """Write every item of the source into a store; nothing where no field names an item."""
    items = all_items(schema, interactions)
    if schema.item_key is None or items is None:
        return
    positions = schema.item_fields
    key_field = schema.fields[schema.names.index(schema.item_key)]
    by_key: dict[Any, dict[str, Any]] = {}
    for row in items:
        key = key_field.key(row[schema.item_key])
        if key is not None:
            by_key.setdefault(key, row)
    by_key = dict(sorted(by_key.items()))
    raw = [
        {f.name: _typed(f, row[f.name]) for f in schema.fields if f.side == "item"} for row in by_key.values()
    ]
    ids = [vocabulary.encode_values(f, [row[schema.names[f]] for row in raw]) for f in positions]
    titles = {key_field.key(item): title for item, title in interactions.titles.items()}
    item_titles = [titles.get(key, "") for key in by_key]
    save_catalog(
        folder, Catalog(np.concatenate(ids, axis=1).astype(np.int32), list(by_key), item_titles, raw)
    )


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
