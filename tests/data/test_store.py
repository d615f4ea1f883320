"""A store is prepared once, used again, and prepared anew when an input changes or a file is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondevice.data import load_dataset, read, store
from ondevice.data.dataset import Dataset
from ondevice.data.preparation import assemble, prepare, whole
from ondevice.errors import UserError


def tiny(folder: Path, **options: Any) -> Dataset:
    return load_dataset("movielens_1m", **{"folder": folder, "split": "temporal", **options})


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fingerprints of the stores that were really written."""
    written: list[str] = []
    write = prepare._prepare

    def counted(plan: Any, fingerprint: str, *arguments: Any) -> None:
        written.append(fingerprint)
        write(plan, fingerprint, *arguments)

    monkeypatch.setattr(prepare, "_prepare", counted)
    return written


def folders(cache: Path) -> list[Path]:
    return sorted((cache / "stores").iterdir())


def same(a: Dataset, b: Dataset) -> bool:
    splits = ("train", "valid", "test")
    return (
        a.fingerprint == b.fingerprint
        and a.schema == b.schema
        and a.vocabulary == b.vocabulary
        and np.array_equal(a.counts, b.counts)
        and all(np.array_equal(a.split(s).ids, b.split(s).ids) for s in splits)
        and all(np.array_equal(a.split(s).labels, b.split(s).labels) for s in splits)
    )


def test_prepared_once(
    official: Path, own_cache: Path, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = tiny(official)
    (folder,) = folders(own_cache)
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert "preparing" in capsys.readouterr().err
    assert same(first, tiny(official))
    assert capsys.readouterr().err == ""
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    assert built == [first.fingerprint]
    assert folder.name == f"movielens_1m-{first.fingerprint[:16]}"


def test_the_place_of_the_source_does_not_matter(official: Path, tmp_path: Path, built: list[str]) -> None:
    first = tiny(official)
    moved = official.rename(tmp_path / "moved")
    assert same(first, tiny(moved))
    assert len(built) == 1


@pytest.mark.parametrize(
    "options",
    [{"split": "random"}, {"seed": 1}, {"fields": "serve"}, {"fractions": (0.6, 0.2, 0.2)}, {"max_rows": 10}],
)
def test_every_option_has_its_own_store(official: Path, own_cache: Path, options: dict[str, Any]) -> None:
    first, second = tiny(official), tiny(official, **options)
    assert first.fingerprint != second.fingerprint
    assert len(folders(own_cache)) == 2
    assert same(first, tiny(official))


def test_a_changed_input_is_prepared_again(official: Path, built: list[str]) -> None:
    first = tiny(official)
    path = official / "ratings.dat"
    path.write_text(path.read_text().replace("1::1::5::1000", "1::1::1::1000"))
    second = tiny(official)
    assert first.fingerprint != second.fingerprint
    assert built == [first.fingerprint, second.fingerprint]
    assert [first.train.labels[0], second.train.labels[0]] == [1, 0]


def test_another_format_is_prepared_again(
    official: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(official)
    monkeypatch.setattr(store, "FORMAT_VERSION", store.FORMAT_VERSION + 1)
    tiny(official)
    assert len(set(built)) == 2


FILES = (
    *(
        "train.ids.npy",
        "train.labels.npy",
        "valid.ids.npy",
        "test.labels.npy",
        "counts.npy",
        "vocabulary.npz",
    ),
    *("schema.json", "catalog.json", "catalog.ids.npy", "store.json"),
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "gone", "longer"])
def test_a_damaged_store_is_prepared_again(
    official: Path, own_cache: Path, built: list[str], name: str, damage: str
) -> None:
    first = tiny(official)
    path = folders(own_cache)[0] / name
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[:-3] if damage == "cut" else content + b"{")
    assert same(first, tiny(official))
    assert len(built) == 2
    assert path.read_bytes() == content


def test_every_file_is_recorded(official: Path, own_cache: Path) -> None:
    tiny(official)
    (folder,) = folders(own_cache)
    recorded = json.loads((folder / "store.json").read_text())["files"]
    assert set(recorded) | {"store.json"} == {path.name for path in folder.iterdir()}
    assert set(FILES) <= {path.name for path in folder.iterdir()}


def test_a_failed_preparation_leaves_nothing(
    official: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assemble, "save_catalog", full)
    with pytest.raises(UserError, match=r"No space left on device.*ONDEVICE_CACHE"):
        tiny(official)
    assert folders(own_cache) == []


def test_another_process_may_win(official: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes prepare at once: the one whose folder cannot be put in place takes the other's."""
    first = tiny(official)
    (folder,) = folders(own_cache)
    kept = folder.rename(own_cache / "kept")

    def late(*_: Any) -> None:
        kept.rename(folder)
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(prepare, "_prepare", late)
    assert same(first, tiny(official))


def test_blocks_do_not_change_the_store(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny(official)
    expected = first.train.ids.tolist(), first.counts.tolist()
    monkeypatch.setattr(store, "FORMAT_VERSION", -1)
    monkeypatch.setattr(whole, "BLOCK_ROWS", 3)
    monkeypatch.setattr(read, "CHUNK_ROWS", 4)
    second = tiny(official)
    assert (second.train.ids.tolist(), second.counts.tolist()) == expected


def test_the_vocabulary_is_of_the_training_rows_only(official: Path) -> None:
    for seed in range(5):
        data = tiny(official, split="random", seed=seed, fractions=(0.5, 0.2, 0.3))
        assert data.counts.sum() == len(data.train) * len(data.schema.fields)
        offsets = set(data.vocabulary.field_offsets.tolist())
        for global_id, count in enumerate(data.counts.tolist()):
            assert (count > 0) != (global_id in offsets)  # each known id occurs; no training value is unknown


def test_raw_rows_of_no_split(official: Path) -> None:
    with pytest.raises(ValueError, match="choose from train, valid, test"):
        tiny(official).raw_rows("tset", [0])
