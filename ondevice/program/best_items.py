"""What a bundle recommends: the best items of its program, without those that were seen or are to be left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ondevice.bundle.manifest_check import EXCLUDED
from ondevice.data.schema import Schema
from ondevice.errors import UserError
from ondevice.program.target import OpenProgram


class Asked(Protocol):
    """What is asked of a bundle: see `ondevice.program.bundle.Bundle`."""

    path: Path
    schema: Schema
    manifest: Mapping[str, Any]
    num_rows: int

    @property
    def program(self) -> OpenProgram: ...

    @property
    def catalog(self) -> list[dict[str, Any]] | None: ...

    @property
    def item_keys(self) -> list[int | str]: ...

    @property
    def item_places(self) -> dict[str, int]: ...

    def encode(self, raw: Mapping[str, Any], fields: Sequence[int] | None = None) -> np.ndarray: ...

    def rank_catalog(self, context: np.ndarray) -> np.ndarray: ...


def best_items(
    bundle: Asked,
    context: Mapping[str, Any] | None,
    k: int,
    history: Sequence[Any] | None,
    exclude: Sequence[Any],
) -> list[tuple[int, float]]:
    """The ``k`` best items, by their places among the item's known keys, with their scores: see `Bundle.recommend`."""
    if k < 1:
        raise UserError(f"recommend: k must be at least 1, got {k}")
    raw = dict(context or {})
    if history is not None:
        raw[_history_field(bundle, raw)] = list(history)
    rows = bundle.encode(raw, bundle.schema.context_fields)
    gone = [*_known_places(bundle, [*(history or ()), *exclude])]
    method = bundle.manifest["methods"].get("recommend")
    most = 0 if method is None else method["k"]
    reached = k + len(gone) <= most or most == len(bundle.item_keys)
    if method is not None and any(tensor["name"] == EXCLUDED for tensor in method["inputs"]):
        if k > most:
            raise _too_many(most, k)
        # a row that holds nothing leaves out nothing; the item's rows are its places
        excluded = np.array([[*gone, bundle.num_rows]], dtype=np.int64)
        scores, places = bundle.program("recommend", rows[None], excluded)
        kept = scores > -np.inf
        scores, places = scores[kept], places[kept]
    elif method is not None and k <= most and reached:
        scores, places = bundle.program("recommend", rows[None])
    elif bundle.catalog is not None:
        scores = bundle.rank_catalog(rows)
        places = np.argsort(-scores, kind="stable")
        scores = scores[places]
    elif method is not None:
        raise _too_many(most, k + len(gone))
    else:
        raise UserError(
            "recommend: this bundle has neither the method nor catalog.bin; export with "
            "--methods forward,rank,recommend or with --catalog"
        )
    if gone:
        kept = ~np.isin(places, gone)
        scores, places = scores[kept], places[kept]
    return [(int(place), float(score)) for place, score in zip(places[:k], scores[:k], strict=True)]


def _too_many(most: int, asked: int) -> UserError:
    return UserError(
        f"recommend: this program returns at most {most} items, {asked} were asked for; "
        "export with a larger --top-k or with --catalog"
    )


def _history_field(bundle: Asked, raw: Mapping[str, Any]) -> str:
    """The field that a history stands for.

    Raises: UserError: when there is none, or the context gives it already.
    """
    fields = bundle.schema.histories
    if not fields:
        raise UserError(f"{bundle.path}: its schema has no history; give the context's fields alone")
    name: str = fields[0].name
    if name in raw:
        raise UserError(f"recommend: the context has '{name}' and a history is given; give one of them")
    return name


def _known_places(bundle: Asked, keys: Sequence[Any]) -> np.ndarray:
    """Places of raw item keys, each once; of unknown ones none.

    Raises: UserError: for a text where items have numbers.
    """
    schema = bundle.schema
    if not keys:
        return np.zeros(0, dtype=np.int64)
    assert schema.item_key is not None, "a bundle that recommends names its items"
    field = schema.fields[schema.names.index(schema.item_key)]
    for key in keys if field.has_integer_keys else ():
        if field.is_foreign(key):
            raise UserError(f"'{field.name}' takes numbers, not {key!r}; leave it out")
    texts = (str(key) for key in field.keys(list(keys)) if key is not None)
    places = {bundle.item_places[text] for text in texts if text in bundle.item_places}
    return np.array(sorted(places), dtype=np.int64)
