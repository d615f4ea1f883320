"""A bundle: a program, its vocabulary and its manifest in one directory, usable from raw values alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.bundle import catalog_file, vocabulary_file
from ondevice.bundle import manifest as manifests
from ondevice.bundle.row_lookup import RowLookup
from ondevice.data.schema import Schema
from ondevice.data.value_names import value_names
from ondevice.errors import DamagedFile, UserError
from ondevice.files import atomic_directory
from ondevice.program.best_items import best_items, context_rows
from ondevice.program.golden import Moment, check_golden, golden_case
from ondevice.program.new_items import TakesNewItems
from ondevice.program.raw_rows import RawRows
from ondevice.program.target import OpenProgram
from ondevice.program.targets import shipped

Raw = Mapping[str, Any]


def make_bundle(
    *,
    program: bytes,
    vocabulary: Sequence[vocabulary_file.FieldKeys],
    schema: Schema,
    manifest: Mapping[str, Any],
    golden: Sequence[Raw],
    moments: Sequence[Moment] = (),
    catalog: Sequence[Raw] | None = None,
) -> Bundle:
    """A bundle in memory, whole but for `Bundle.write`.

    Args:
        program: content of model.pte.
        vocabulary: content of vocabulary.bin.
        schema: fields in the order of a row.
        manifest: the manifest's entries that are known here: name, model, method, layout, num_rows, sizes,
            methods, ops, backends, versions, metrics and, with ``recommend``, catalog; golden_tolerance where readers
            have to allow more than 1e-3.
        golden: raw rows whose ids and scores the manifest records; at least two.
        moments: of each of them the times of its history and when it is asked, where the schema has time gaps.
        catalog: title and raw values of each item, in the order of ``recommend``'s item_index; with them go
            names of the other fields' values, where the data set has them.
    """
    contents = {manifests.PROGRAM: program, manifests.VOCABULARY: vocabulary_file.encode(vocabulary)}
    entries = {
        **{k: manifest[k] for k in ("name", "model", "method", "layout")},
        "schema": manifests.compact_schema(schema),
        **{k: manifest[k] for k in ("num_rows", "sizes", "methods")},
        **{k: manifest[k] for k in ("catalog", "golden_tolerance") if k in manifest},
        **{k: manifest[k] for k in ("ops", "backends", "versions", "metrics")},
        "files": {name: manifests.file_entry(content) for name, content in contents.items()},
    }
    assert len(golden) >= 2, "a bundle has two golden cases or more"
    bundle = Bundle(Path("bundle"), entries, contents)
    if catalog is not None:
        contents[manifests.CATALOG] = bundle.encode_catalog(catalog)
        entries["files"][manifests.CATALOG] = manifests.file_entry(contents[manifests.CATALOG])
        if names := value_names(schema):
            entries["labels"] = names
    cases = itertools.zip_longest(golden, moments, fillvalue=Moment())
    entries["golden"] = [golden_case(bundle, raw, moment) for raw, moment in cases]  # type: ignore[arg-type]
    contents[manifests.MANIFEST] = manifests.seal(entries)
    return bundle


def load_bundle(path: str | Path) -> Bundle:
    """Open a bundle and verify every file in it.

    Raises: UserError: naming the file that is missing, changed, or of a newer format.
    """
    folder = Path(path)
    manifest, content = manifests.read_manifest(folder)
    files = manifests.read_files(folder, manifest)
    return Bundle(folder, manifest, {**files, manifests.MANIFEST: content})


class Bundle(TakesNewItems):
    """An exported model that takes raw values.

    Args:
        path: its directory.
        manifest: its manifest.
        contents: verified content of its files, by name.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], contents: Mapping[str, bytes]) -> None:
        self.path = path
        self.manifest = manifest
        self.contents = contents
        self.schema = Schema.from_dict(
            manifests.full_schema(manifest["schema"]), str(path / manifests.MANIFEST)
        )
        self.num_rows: int = manifest["num_rows"]
        fields = vocabulary_file.decode(
            contents[manifests.VOCABULARY], str(path / manifests.VOCABULARY), self.num_rows
        )
        if len(fields) != len(self.schema.fields):
            raise DamagedFile(
                f"{path / manifests.VOCABULARY}: {len(fields)} fields, but the schema has "
                f"{len(self.schema.fields)}; export it again"
            )
        self.vocabulary = RowLookup(fields)
        self.raw = RawRows(self.schema, self.vocabulary)

    @cached_property
    def program(self) -> OpenProgram:
        """The program, loaded when first used."""
        return shipped().open(self.contents[manifests.PROGRAM], str(self.path / manifests.PROGRAM))

    @cached_property
    def catalog(self) -> list[dict[str, Any]] | None:
        """Items of catalog.bin in the order of ``recommend``'s item_index; None where there is none."""
        content = self.contents.get(manifests.CATALOG)
        if content is None:
            return None
        assert self.schema.item_key is not None
        return catalog_file.decode(
            content, self.item_keys, self.schema.item_key, str(self.path / manifests.CATALOG)
        )

    def encode_catalog(self, items: Sequence[Raw]) -> bytes:
        """The content of catalog.bin: title and raw values of each known item, in the order of rows."""
        assert self.schema.item_key is not None
        field = self.schema.fields[self.schema.names.index(self.schema.item_key)]
        keys = field.keys([item.get(field.name) for item in items])
        catalog_file.check_order(items, keys, self.item_keys)
        return catalog_file.encode(items, self.item_keys, field.name)

    def file_bytes(self) -> dict[str, int]:
        """Bytes of every file, by name."""
        return {name: len(content) for name, content in self.contents.items()}

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole bundle."""
        return sum(self.file_bytes().values())

    @property
    def needed_bytes(self) -> int:
        """Bytes of what answers: all but the titles of catalog.bin, which no budget counts."""
        return self.total_bytes - len(self.contents.get(manifests.CATALOG, b""))

    def write(self, path: str | Path) -> Bundle:
        """Write the bundle as a whole or not at all, and open what was written.

        Args:
            path: its directory; a bundle that is there already is replaced.

        Raises: UserError: when the directory cannot be written, or holds something else.
        """
        folder = Path(path)
        try:
            manifests.check_replaceable(folder)
            with atomic_directory(folder) as building:
                for name, content in self.contents.items():
                    (building / name).write_bytes(content)
        except OSError as error:
            raise UserError(
                f"cannot write {folder}: {error}; free some room or give another --output"
            ) from error
        return load_bundle(folder)

    def encode(self, raw: Raw, fields: Sequence[int] | None = None) -> np.ndarray:
        """Program rows (int64) of the fields at some places, by default all; an absent value is unknown.

        Raises: UserError: when ``raw`` names a field that is not one of these, or has a text for a number.
        """
        rows: np.ndarray = self.encode_all([raw], fields)[0]
        return rows

    def encode_all(self, raws: Sequence[Raw], fields: Sequence[int] | None = None) -> np.ndarray:
        """`encode` of each, (n, slots of the fields) int64."""
        return self.raw.named_rows(raws, fields)

    def score_rows(self, rows: np.ndarray) -> np.ndarray:
        """Scores (n,) of program rows (n, S), in as many calls as the program's largest batch needs."""
        if "forward" in self.manifest["methods"]:
            limit = self.manifest["methods"]["forward"]["max_batch"]
            parts = [self.program("forward", rows[i : i + limit])[0] for i in range(0, len(rows), limit)]
        else:
            context, item = list(self.schema.context_columns), list(self.schema.item_columns)
            parts = [self.program("rank", row[None, context], row[None, item])[0] for row in rows]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)

    def score(self, raw: Raw | Sequence[Raw]) -> list[float]:
        """Scores of whole rows of raw values by field name.

        Raises: UserError: when the bundle reads time gaps, which rows do not have.
        """
        if self.schema.num_gaps:
            raise UserError(f"{self.path}: reads time gaps; use rank(history=[…], times=[…], items=[…])")
        rows = [raw] if isinstance(raw, Mapping) else list(raw)
        return self.score_rows(self.encode_all(rows)).tolist()

    def rank(
        self,
        context: Raw | None = None,
        items: Sequence[Raw | int | str] = (),
        *,
        history: Sequence[Any] | None = None,
        times: Sequence[float | None] | None = None,
        now: float | None = None,
    ) -> list[float]:
        """Scores of items in one context, in the order given.

        Args:
            context: raw values of the context's fields.
            items: raw values of the item's fields, or keys: of items that catalog.bin describes, or of any where an
                item is nothing but its key.
            history: keys of what the user did, the newest last, as in `recommend`; with them go times and now.
        """
        self._needs_both_sides()
        self.encode_all([item for item in items if isinstance(item, Mapping)], self.schema.item_fields)
        rows = self.raw.rows([self._item(item) for item in items], self.schema.item_fields)
        asked = context_rows(self, context, history, times, now)
        return self.rank_rows(asked, rows).tolist() if len(rows) else []

    def rank_rows(self, context: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Scores (n,) of the item's rows (n, S) in the context of these rows, as `context_rows` gives them."""
        if "rank" not in self.manifest["methods"]:
            rows = np.empty((len(items), self.schema.slots.total), dtype=np.int64)
            rows[:, list(self.schema.context_columns)] = context
            rows[:, list(self.schema.item_columns)] = items
            return self.score_rows(rows)
        limit = self.manifest["methods"]["rank"]["max_items"]
        parts = [
            self.program("rank", context[None], items[i : i + limit])[0] for i in range(0, len(items), limit)
        ]
        return np.concatenate(parts)

    def rank_places(self, context: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Scores of the known items at some places in the context of these rows.

        Raises: UserError: when the bundle does not say what its items are.
        """
        rows = self._item_rows[places]
        return self.rank_rows(context, rows) if len(rows) else np.zeros(0, dtype=np.float32)

    def recommend(
        self,
        context: Raw | None = None,
        k: int = 10,
        *,
        history: Sequence[Any] | None = None,
        times: Sequence[float | None] | None = None,
        now: float | None = None,
        exclude: Sequence[Any] = (),
        among: Sequence[Any] | None = None,
    ) -> list[dict[str, Any]]:
        """The ``k`` best items of the catalog in one context, best first; fewer where no more are left.

        Args:
            context: raw values of the context's fields.
            k: how many.
            history: keys of what the user did, the newest last; none of them is returned, unknown ones are passed over.
            times: of a bundle that reads time gaps, when each item of the history was, in seconds since 1970; None
                where that is not known.
            now: the moment of asking, for gaps until the next item; None: that of the clock.
            exclude: keys of further items that are not returned.
            among: keys of the items to choose from, of those that the training knew; by default all.

        Returns: per item its key as ``item``, its ``score`` and, where catalog.bin has one, its ``title``.

        Raises: UserError: when the bundle holds no catalog, or ``among`` names an item that it does not know.
        """
        self._needs_both_sides()
        if k < 1:
            raise UserError(f"recommend: k must be at least 1, got {k}")
        rows = context_rows(self, context, history, times, now)
        best = best_items(self, rows, k, history, exclude, among)
        if any(not 0 <= item < len(self.item_keys) for item, _ in best):
            raise self._damaged(f"it has {len(self.item_keys)} items, and the program recommends others")
        known = [self._described(item, score) for item, score in best]
        return known if among is not None else self.with_new(known, rows, k, history, exclude)

    def check_golden(self, tolerance: float | None = None) -> float:
        """The largest difference from what the golden cases record: see `ondevice.program.golden`."""
        return check_golden(self, tolerance)

    def _damaged(self, what: str) -> DamagedFile:
        return DamagedFile(f"{self.path / manifests.VOCABULARY}: {what}; export it again")

    def _needs_both_sides(self) -> None:
        if not self.schema.context_fields or not self.schema.item_fields:
            raise UserError(
                f"{self.path}: its schema has fields of one side only, so there is nothing to rank; use score"
            )

    def _item(self, item: Raw | int | str) -> Raw:
        if isinstance(item, Mapping):
            return item
        if self.catalog is None and not self._is_item_its_key:
            raise UserError(
                f"item {item!r}: this bundle has no catalog.bin to look a key up in; give the item's raw "
                "values, or export with --catalog"
            )
        place = self.item_places.get(str(item))
        if place is None:
            raise UserError(f"item {item!r} is not in {manifests.CATALOG} (or kept no row in this model)")
        if self.catalog is None:
            return {self._item_names[0]: self.item_keys[place]}
        return {name: self.catalog[place].get(name) for name in self._item_names}

    @property
    def _is_item_its_key(self) -> bool:
        """Whether the program reads nothing of an item but its key."""
        return self._item_names == [self.schema.item_key]

    @cached_property
    def _item_names(self) -> list[str]:
        return [self.schema.fields[f].name for f in self.schema.item_fields]

    @cached_property
    def item_keys(self) -> list[int | str]:
        """Keys of the catalog's items: item i is the i-th key of the item's field in the order of rows."""
        assert self.schema.item_key is not None
        field = self.schema.names.index(self.schema.item_key)
        texts = [text for _, text in self.vocabulary.items(field)]
        if self.schema.fields[field].kind != "integer":
            return list(texts)
        try:
            return [int(text) for text in texts]
        except ValueError:
            raise self._damaged(
                f"'{self.schema.item_key}' has texts, where the schema says integers"
            ) from None

    @cached_property
    def item_places(self) -> dict[str, int]:
        return {str(key): place for place, key in enumerate(self.item_keys)}

    @cached_property
    def _item_rows(self) -> np.ndarray:
        return self.raw.rows(list(map(self._item, self.item_keys)), self.schema.item_fields)

    def _described(self, place: int, score: float) -> dict[str, Any]:
        described: dict[str, Any] = {"item": self.item_keys[place], "score": score}
        if self.catalog is not None and self.catalog[place].get("title"):
            described["title"] = self.catalog[place]["title"]
        return described
