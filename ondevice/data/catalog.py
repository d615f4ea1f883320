"""The items of a source in its store: their ids, keys, titles and raw values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.dataset import Catalog
from ondevice.data.schema import Field, Schema, number_of
from ondevice.data.vocabulary import Vocabulary


def catalog_of(
    schema: Schema, items: Mapping[Any, Mapping[str, Any]], titles: Mapping[Any, str], vocabulary: Vocabulary
) -> Catalog:
    """The items, their keys ascending.

    Args:
        schema: names the item.
        items: raw values of the item-side fields by name, by raw key.
        titles: by raw key.
        vocabulary: of the store.
    """
    field = schema.named(str(schema.item_key))
    by_key: dict[Any, Mapping[str, Any]] = {}
    for item, row in items.items():
        by_key.setdefault(field.key(item), row)  # of several rows with one key the first
    by_key.pop(None, None)
    keys = sorted(by_key)
    fields = [schema.fields[f] for f in schema.item_fields]
    raw = [{f.name: _typed(f, by_key[key][f.name]) for f in fields} for key in keys]
    ids = [vocabulary.encode_values(f, [row[schema.names[f]] for row in raw]) for f in schema.item_fields]
    title_of = {field.key(item): title for item, title in titles.items()}
    return Catalog(
        np.concatenate(ids, 1).astype(np.int32), keys, [title_of.get(key, "") for key in keys], raw
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
