"""Items that come after a training, ranked by their attributes.

A score ⟨u, e⟩ + w is linear in an item's vector (e, w). What an attribute's value adds to that vector is a combination
Σ_b c_b·v_b of the vectors of some items b that the program has, so it adds Σ_b c_b·score(b) to the score, whatever the
user's vector is. The program stays as it is, and is asked for the scores of those items once.

``item_attributes.safetensors``, which an export writes beside the bundle, holds ``places`` (B,) int32, the items b by
their place in the bundle, and ``coefficients`` (V, B) float32, a row for each known value of all attributes. Its
metadata has ``format``, ``model`` (the SHA-256 of the model.pte that it belongs to) and ``fields`` (JSON: each
attribute as in a schema, with its ``keys`` in the order of the rows).

A file of new items is JSON: ``format``, ``model`` as above, and ``items``, each a mapping with the item's key, its
attributes and, if there is one, its ``title``.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ondevice.bundle.manifest import ITEM_ATTRIBUTES, PROGRAM
from ondevice.data.field import Field
from ondevice.data.schema import Schema
from ondevice.data.slots import POWERS
from ondevice.errors import DamagedFile, UserError, nearest
from ondevice.files import atomic_json, atomic_write

FORMAT = "ondevice.item_attributes.1"
ITEMS_FORMAT = "ondevice.new_items.1"
SMALLEST = 1e-6  # of a vector that is still taken for one of its own, beside the largest
Raw = Mapping[str, Any]
B = TypeVar("B", bound="TakesNewItems")


class Taken(Protocol):
    """The bundle that takes new items: see `ondevice.program.bundle.Bundle`."""

    path: Path
    contents: Mapping[str, bytes]
    schema: Schema

    @property
    def item_places(self) -> dict[str, int]: ...


def basis(vectors: np.ndarray) -> np.ndarray:
    """Places of rows that span all others: the longest, then the one farthest from the span of those taken, and so on.

    Shape: (I, D) -> (B,), B ≤ D.
    """
    left = vectors.astype(np.float64)
    places: list[int] = []
    lengths = np.linalg.norm(left, axis=1)
    smallest = SMALLEST * lengths.max()
    while len(places) < vectors.shape[1] and lengths.max() > smallest:
        place = int(lengths.argmax())
        places.append(place)
        direction = left[place] / lengths[place]
        left -= np.outer(left @ direction, direction)
        lengths = np.linalg.norm(left, axis=1)
    return np.array(places, dtype=np.int32)


def write_attributes(
    folder: Path, program: bytes, vectors: np.ndarray, values: np.ndarray, fields: Sequence[Raw]
) -> None:
    """Write what attributes are worth beside a bundle.

    Args:
        folder: of the bundle.
        program: content of its model.pte.
        vectors: (I, D + 1) of its items, as they are stored, the bias last.
        values: (V, D + 1) of the known values of all attributes.
        fields: each attribute as in a schema, with its ``keys``.
    """
    places = basis(vectors)
    coefficients = np.linalg.lstsq(vectors[places].T.astype(np.float64), values.T.astype(np.float64))[0].T
    content = {"places": places, "coefficients": np.ascontiguousarray(coefficients, dtype=np.float32)}
    described = {"format": FORMAT, "model": _digest(program), "fields": json.dumps(list(fields))}
    atomic_write(folder / ITEM_ATTRIBUTES, save(content, described))


def write_new_items(path: str | Path, bundle: Taken, items: Sequence[Raw]) -> None:
    """Write a file of new items for `Bundle.with_items`, whole or not at all.

    Raises: UserError: as `NewItems.of`.
    """
    NewItems.of(bundle, items)
    content = {
        "format": ITEMS_FORMAT,
        "model": _digest(bundle.contents[PROGRAM]),
        "items": list(map(dict, items)),
    }
    atomic_json(Path(path), content)


@dataclass(frozen=True)
class NewItems:
    """Items that a bundle's training did not know, and what their scores are made of.

    Args:
        keys: of the items.
        titles: of the items, an empty text for none.
        places: of the bundle's items whose scores they are made of.
        coefficients: (n, B) what each of these counts.
    """

    keys: list[int | str]
    titles: list[str]
    places: np.ndarray
    coefficients: np.ndarray

    @classmethod
    def of(cls, bundle: Taken, items: Sequence[Raw] | str | Path) -> NewItems:
        """Those in a list, or in a file that `write_new_items` wrote.

        Raises: UserError: when the bundle has no attributes beside it, a file belongs to another bundle, or an item has
            no key, one that the bundle knows, or no attribute that it knows.
        """
        if isinstance(items, (str, Path)):
            items = _items_of(Path(items), bundle)
        places, coefficients, fields, keys = _attributes_of(bundle)
        rows = [dict(zip(each, range(len(each)), strict=True)) for each in keys]
        begins = np.cumsum([0, *map(len, keys)])
        field = bundle.schema.named(str(bundle.schema.item_key))
        allowed = [field.name, "title", *(each.name for each in fields)]
        shares = np.zeros((len(items), begins[-1]), dtype=np.float32)
        item_keys: list[int | str] = []
        for at, item in enumerate(items):
            for name in item:
                if name not in allowed:
                    raise UserError(f"with_items: '{name}' is no attribute {nearest(str(name), allowed)}")
            key = field.key(item.get(field.name))
            if key is None:
                raise UserError(f"with_items: item {at + 1} has no key; give it a value of '{field.name}'")
            if str(key) in bundle.item_places or key in item_keys:
                raise UserError(f"with_items: item {key!r} is in the bundle already, or twice in the list")
            for begin, each, row_of in zip(begins, fields, rows, strict=False):
                raw = item.get(each.name)
                values = each.kept(raw) if each.slots > 1 else (each.key(raw),)
                known = [row_of[value] for value in values if value in row_of]
                if known:
                    shares[at, begin + np.array(known)] = len(known) ** -POWERS[each.pooling]
            if not shares[at].any():
                names = ", ".join(each.name for each in fields)
                raise UserError(
                    f"with_items: item {key!r} has no attribute that the model knows; give {names}"
                )
            item_keys.append(key)
        titles = [str(item.get("title") or "") for item in items]
        return cls(item_keys, titles, places, shares @ coefficients)

    def among(
        self, best: list[dict[str, Any]], scores: np.ndarray, k: int, left_out: Sequence[Any]
    ) -> list[dict[str, Any]]:
        """The ``k`` best of the bundle's items and the new ones.

        Args:
            best: what the bundle recommends, falling.
            scores: (B,) of the items at ``places``.
            left_out: keys of items that are not returned.
        """
        gone = {str(key) for key in left_out}
        new = [
            {"item": key, "score": float(score), **({"title": title} if title else {})}
            for key, title, score in zip(self.keys, self.titles, self.coefficients @ scores, strict=True)
            if str(key) not in gone
        ]
        return sorted([*best, *new], key=lambda each: -each["score"])[:k]


class TakesNewItems:
    """What a bundle does with items that its training did not know."""

    new_items: NewItems | None = None

    def with_items(self: B, items: Sequence[Raw] | str | Path) -> B:
        """This bundle with new items among those that `recommend` returns.

        Args:
            items: of each its key, its attributes and perhaps its ``title``; or a file that `write_new_items` wrote. In
                a history they are passed over, as other unknown items are, but not returned.

        Raises: UserError: as `NewItems.of`.
        """
        wider = copy.copy(self)
        wider.new_items = NewItems.of(self, items)  # type: ignore[arg-type]  # a bundle has the rest
        return wider

    def with_new(
        self,
        best: list[dict[str, Any]],
        rows: np.ndarray,
        k: int,
        history: Sequence[Any] | None,
        exclude: Sequence[Any],
    ) -> list[dict[str, Any]]:
        """The ``k`` best of what is recommended of the bundle's items and the new ones.

        Args:
            rows: of the context.
        """
        if self.new_items is None:
            return best
        bundle: Any = self
        scores = bundle.rank_places(rows, self.new_items.places)
        return self.new_items.among(best, scores, k, [*(history or ()), *exclude])


def _attributes_of(bundle: Taken) -> tuple[np.ndarray, np.ndarray, list[Field], list[list[int | str]]]:
    """What the file beside a bundle says.

    Raises: UserError: when there is none, or that of another bundle.
    """
    path = bundle.path / ITEM_ATTRIBUTES
    try:
        with safe_open(path, framework="numpy") as content:
            described = content.metadata() or {}
            if described.get("format") != FORMAT:
                raise DamagedFile(f"{path}: not of the format {FORMAT}; export the bundle again")
            _check_belongs(path, described.get("model"), bundle)
            fields = [dict(each) for each in json.loads(described["fields"])]
            keys = [each.pop("keys") for each in fields]
            places, coefficients = content.get_tensor("places"), content.get_tensor("coefficients")
    except FileNotFoundError:
        raise UserError(
            f"{bundle.path}: takes no new items ({ITEM_ATTRIBUTES} is missing); train with item attributes "
            "(data.fields=next_item_attributes, or fields of side item), and export"
        ) from None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise DamagedFile(f"{path}: damaged ({error}); export the bundle again") from None
    return places.astype(np.int64), coefficients, [Field(**each) for each in fields], keys


def _items_of(path: Path, bundle: Taken) -> list[Raw]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file of new items") from None
    except ValueError as error:
        raise DamagedFile(f"{path}: not JSON ({error}); write it again with write_new_items") from None
    if not isinstance(content, dict) or content.get("format") != ITEMS_FORMAT:
        raise UserError(
            f"{path}: no file of new items (format {ITEMS_FORMAT}); write it with write_new_items"
        )
    _check_belongs(path, content.get("model"), bundle)
    items: list[Raw] = content["items"]
    return items


def _check_belongs(path: Path, digest: Any, bundle: Taken) -> None:
    if digest != _digest(bundle.contents[PROGRAM]):
        raise UserError(f"{path}: belongs to another model than {bundle.path}; write it for this one")


def _digest(program: bytes) -> str:
    return hashlib.sha256(program).hexdigest()
