"""What a bundle recommends: the best items of its program, without those that were seen or are to be left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ondevice.bundle.manifest_check import EXCLUDED
from ondevice.data.schema import Schema
from ondevice.errors import UserError
from ondevice.program.raw_rows import RawRows
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

    @property
    def raw(self) -> RawRows: ...

    def encode(self, raw: Mapping[str, Any], fields: Sequence[int] | None = None) -> np.ndarray: ...

    def rank_places(self, context: np.ndarray, places: np.ndarray) -> np.ndarray: ...


def leaves_out(method: Mapping[str, Any] | None) -> bool:
    """Whether this ``recommend`` of a manifest, None for none, leaves out what was seen; its items are its rows."""
    return method is not None and any(tensor["name"] == EXCLUDED for tensor in method["inputs"])


def best_items(
    bundle: Asked,
    rows: np.ndarray,
    k: int,
    history: Sequence[Any] | None,
    exclude: Sequence[Any],
    among: Sequence[Any] | None = None,
) -> list[tuple[int, float]]:
    """The ``k`` best items, by their places among the item's known keys, with their scores: see `Bundle.recommend`.

    Args:
        rows: of the context, as `context_rows` gives them.
    """
    gone = [*_known_places(bundle, [*(history or ()), *exclude])]
    method = bundle.manifest["methods"].get("recommend")
    most = 0 if method is None else method["k"]
    reached = k + len(gone) <= most or most == len(bundle.item_keys)
    if among is not None:
        if leaves_out(method):
            seen = rows[: len(rows) - bundle.schema.num_gaps]
            gone += [row for row in seen if row < bundle.num_rows]
        scores, places = _ranked(bundle, rows, _known_places(bundle, among, all_known=True))
    elif leaves_out(method):
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
        scores, places = _ranked(bundle, rows, np.arange(len(bundle.item_keys)))
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


def _ranked(bundle: Asked, rows: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of items in one context, falling, and their places."""
    scores = bundle.rank_places(rows, places)
    order = np.argsort(-scores, kind="stable")
    return scores[order], places[order]


def _too_many(most: int, asked: int) -> UserError:
    return UserError(
        f"recommend: this program returns at most {most} items, {asked} were asked for; "
        "export with a larger --top-k or with --catalog"
    )


def context_rows(
    bundle: Asked,
    context: Mapping[str, Any] | None,
    history: Sequence[Any] | None,
    times: Sequence[float | None] | None,
    now: float | None,
) -> np.ndarray:
    """What a program reads of a context, (slots,) int64: the rows of its fields, and after them the buckets of gaps.

    Raises: UserError: as `with_history` and `RawRows.gaps`; and when times are given to a bundle that reads none.
    """
    rows = bundle.encode(with_history(bundle, context, history), bundle.schema.context_fields)
    if not bundle.schema.num_gaps:
        if times is not None or now is not None:
            raise UserError(f"{bundle.path}: reads no time gaps; leave out times and now")
        return rows
    name = next(field.name for field in bundle.schema.histories)
    if context and name in context:
        raise UserError(f"'{name}' is read with time gaps; give it as history=[…] with times=[…]")
    return np.concatenate([rows, bundle.raw.gaps(history or (), times, now)])


def with_history(
    bundle: Asked, context: Mapping[str, Any] | None, history: Sequence[Any] | None
) -> dict[str, Any]:
    """The context with a history as the value of its field; None leaves it as it is.

    Raises: UserError: when the bundle has no such field, or the context gives it already.
    """
    raw = dict(context or {})
    if history is None:
        return raw
    fields = bundle.schema.histories
    if not fields:
        raise UserError(f"{bundle.path}: its schema has no history; give the context's fields alone")
    name = fields[0].name
    if name in raw:
        raise UserError(f"recommend: the context has '{name}' and a history is given; give one of them")
    return {**raw, name: list(history)}


def _known_places(bundle: Asked, keys: Sequence[Any], all_known: bool = False) -> np.ndarray:
    """Places of raw item keys, each once; of unknown ones none.

    Args:
        all_known: refuse unknown ones.

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
    places = set()
    for key, text in zip(keys, field.keys(list(keys)), strict=True):
        place = None if text is None else bundle.item_places.get(str(text))
        if place is not None:
            places.add(place)
        elif all_known:
            raise UserError(f"item {key!r} is none that this bundle knows; leave it out")
    return np.array(sorted(places), dtype=np.int64)
