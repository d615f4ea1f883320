"""The cache of whoever runs the tests gives them data sets, and gets nothing of theirs but downloads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ondevice.data import Dataset, load_dataset
from ondevice.data.sources import cache_directory

from .caches import lend
from .once import shared_folder


def prepared(table_files: tuple[Path, Path]) -> tuple[Dataset, Path]:
    """A small table, and the folder of its store in the cache that is named now."""
    schema, path = table_files
    data = load_dataset("table", schema=str(schema), path=str(path))
    return data, cache_directory() / "stores" / f"{data.schema.name}-{data.fingerprint[:16]}"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_stores_that_no_test_has_a_cache_for_end_with_the_session(
    table_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    _, store = prepared(table_files)
    assert (store / "store.json").is_file()
    assert shared_folder(tmp_path_factory) in store.parent.resolve().parents


def test_a_lent_cache_is_read_and_not_written(
    table_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lender = tmp_path / "lender"
    monkeypatch.setenv("ONDEVICE_CACHE", str(lender))
    first, store = prepared(table_files)
    for _ in range(2):  # as two processes do
        folder = lend(lender, tmp_path / "folder")
    monkeypatch.setenv("ONDEVICE_CACHE", str(folder))
    assert prepared(table_files)[1].resolve() == store, "it is prepared already"

    (store / "train.ids.npy").unlink()
    left = contents(lender)
    again, other = prepared(table_files)
    assert other.resolve() != store
    np.testing.assert_array_equal(again.train.ids, first.train.ids)
    assert contents(lender) == left

    (folder / "sources" / "downloaded").mkdir()
    assert (lender / "sources" / "downloaded").is_dir(), "nobody downloads twice"
