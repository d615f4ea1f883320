"""Whole preparations: against plain counting in memory, whatever the chunks, processes and memory."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.made_up import write_criteo
from ondevice.data import Dataset, load_dataset
from ondevice.data.preparation import files, pool, prepare
from ondevice.data.sets.avazu import COLUMNS
from ondevice.data.splits import SPLIT_STREAM, hash_rows
from ondevice.errors import UserError
from tests.vocabularies import of_counts

from .rows import HEADER, avazu_lines, criteo_lines, real_sample, write_lines

CRITEO = ["label", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]


def rows_of(name: str, path: Path) -> list[dict[str, str]]:
    """Cells by column."""
    if name == "criteo":
        return [dict(zip(CRITEO, line.split("\t"), strict=True)) for line in path.read_text().splitlines()]
    rows = [dict(zip(COLUMNS, line.split(","), strict=True)) for line in path.read_text().splitlines()[1:]]
    for row in rows:
        stamp = row["hour"]
        row["hour"] = str(int(stamp[6:]))
        # January the 1st of 2012 was a Sunday
        days = np.datetime64(f"20{stamp[:2]}-{stamp[2:4]}-{stamp[4:6]}") - np.datetime64("2012-01-01")
        row["weekday"] = str(days.astype(int) % 7)
    return rows


def check(name: str, path: Path, data: Dataset, seed: int = 0) -> None:
    """A random split of one file: every id and count, computed value by value."""
    rows = rows_of(name, path)
    first_line = 0 if name == "criteo" else 1
    hashes = hash_rows(np.arange(first_line, first_line + len(rows), dtype=np.uint64), seed, SPLIT_STREAM)
    split = np.array(["train", "valid", "test"])[
        (hashes >= np.uint64(round(0.8 * 2**64))).astype(int) + (hashes >= np.uint64(round(0.9 * 2**64)))
    ]
    fields = data.schema.fields
    counts = [Counter(f.key(row[f.name]) for row in np.array(rows)[split == "train"]) for f in fields]
    vocabulary = of_counts(fields, counts)
    assert data.vocabulary == vocabulary
    label = data.schema.label.column
    assert label is not None
    for part in ("train", "valid", "test"):
        kept = [row for row, s in zip(rows, split, strict=True) if s == part]
        expected = np.stack(
            [vocabulary.encode_column(f, [row[x.name] for row in kept]) for f, x in enumerate(fields)], 1
        )
        assert np.array_equal(data.split(part).ids, expected)
        assert data.split(part).labels.tolist() == [int(row[label]) for row in kept]
    occurrences = np.bincount(np.asarray(data.train.ids).ravel(), minlength=vocabulary.num_embeddings)
    assert np.array_equal(data.counts, occurrences)


@pytest.fixture
def criteo_file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "train.txt", criteo_lines(400))


@pytest.fixture
def avazu_file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "train.csv", [HEADER, *avazu_lines(400)])


def content(data: Dataset, own_cache: Path) -> dict[str, bytes]:
    """Every file of its store."""
    folder = own_cache / "stores" / f"{data.schema.name}-{data.fingerprint[:16]}"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["criteo", "avazu"])
@pytest.mark.usefixtures("inline")
def test_real_rows(name: str) -> None:
    path = real_sample("criteo_sample.tsv" if name == "criteo" else "avazu_sample.csv")
    data = load_dataset(name, path=path)
    rows = 10_000 if name == "criteo" else 9_999
    assert len(data.train) + len(data.valid) + len(data.test) == rows
    assert (len(data.schema.fields), data.skipped_rows, data.catalog) == (
        {"criteo": 39, "avazu": 23}[name],
        0,
        None,
    )
    check(name, path, data)


@pytest.mark.parametrize("min_count", [1, 10])
@pytest.mark.usefixtures("inline")
def test_made_up_rows(criteo_file: Path, avazu_file: Path, min_count: int) -> None:
    check(
        "criteo", criteo_file, load_dataset("criteo", path=criteo_file, min_count=min_count, seed=3), seed=3
    )
    check("avazu", avazu_file, load_dataset("avazu", path=avazu_file, min_count=min_count))


@pytest.mark.usefixtures("inline")
def test_a_row_by_hand(tmp_path: Path) -> None:
    """The integers 3, 1 and none; C1 of ten digits' value, and a rarer one that is unknown."""
    line = "\t".join(["1", "3", "1", *[""] * 11, "0000000a", *[""] * 25])
    other = "\t".join(["0", "8", "1", *[""] * 11, "0000000b", *[""] * 25])
    path = write_lines(tmp_path / "train.txt", [line] * 60 + [other] * 4)
    data = load_dataset("criteo", path=path, split="temporal", fractions=(0.9, 0.05, 0.05))
    assert data.vocabulary.keys[0].tolist() == [1]  # type: ignore[union-attr]
    assert data.vocabulary.keys[2].tolist() == [-100]  # type: ignore[union-attr]
    assert data.vocabulary.keys[13].tolist() == [10]  # type: ignore[union-attr]
    assert data.train.ids[0].tolist() == list(range(1, 2 * 39, 2))
    assert data.test.ids[-1].tolist() == [0, *range(3, 2 * 13, 2), 26, *range(29, 2 * 39, 2)]
    raw = data.raw_rows("test", [2])[0]
    assert (raw["I1"], raw["I2"], raw["I3"], raw["C1"], raw["C2"]) == ("?", 1, None, "?", None)
    assert data.vocabulary.encode_row(raw).tolist() == data.test.ids[2].tolist()


@pytest.mark.parametrize("name", ["criteo", "avazu"])
@pytest.mark.usefixtures("inline")
def test_chunks_packing_and_line_ends_do_not_matter(
    criteo_file: Path,
    avazu_file: Path,
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    path = {"criteo": criteo_file, "avazu": avazu_file}[name]
    for split in ("random", "temporal"):
        expected = content(load_dataset(name, path=path, split=split), own_cache)
        packed, dos = tmp_path / "packed.gz", tmp_path / "dos"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        dos.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        with monkeypatch.context() as patch:
            patch.setattr(files, "CHUNK_BYTES", 20_000)
            for other in (path, packed, dos):
                shutil.rmtree(own_cache)
                result = content(load_dataset(name, path=other, split=split, memory="3GB"), own_cache)
                assert result.pop("store.json")
                assert result == {key: value for key, value in expected.items() if key != "store.json"}


@pytest.mark.usefixtures("inline")
def test_a_folder_of_days_is_read_in_their_order(tmp_path: Path, own_cache: Path) -> None:
    lines = criteo_lines(300)
    folder = tmp_path / "days"
    folder.mkdir()
    write_lines(folder / "day_2", lines[100:150])
    write_lines(folder / "day_10", lines[150:])
    (folder / "day_1.gz").write_bytes(gzip.compress("".join(f"{line}\n" for line in lines[:100]).encode()))
    parts = load_dataset("criteo", path=folder, split="temporal")
    whole = load_dataset("criteo", path=write_lines(tmp_path / "all", lines), split="temporal")
    for part in ("train", "valid", "test"):
        assert np.array_equal(parts.split(part).ids, whole.split(part).ids)
    assert parts.vocabulary == whole.vocabulary
    assert len(parts.train) == 240


@pytest.mark.usefixtures("inline")
def test_only_the_first_rows(criteo_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 20_000)
    first = write_lines(tmp_path / "first", criteo_lines(400)[:123])
    some, whole = load_dataset("criteo", path=criteo_file, max_rows=123), load_dataset("criteo", path=first)
    assert np.array_equal(some.train.ids, whole.train.ids)
    assert len(some.train) + len(some.valid) + len(some.test) == 123


def test_prepared_once_and_anew_when_something_changes(
    criteo_file: Path, own_cache: Path, inline: None, capsys: pytest.CaptureFixture[str]
) -> None:
    first = load_dataset("criteo", path=criteo_file)
    assert "preparing" in capsys.readouterr().err
    assert load_dataset("criteo", path=criteo_file, memory="8GB", workers=1).fingerprint == first.fingerprint
    assert capsys.readouterr().err == ""
    for options in (
        {"seed": 1},
        {"min_count": 2},
        {"bad_rows": "skip"},
        {"split": "temporal"},
        {"max_rows": 300},
    ):
        assert load_dataset("criteo", path=criteo_file, **options).fingerprint != first.fingerprint
    write_lines(criteo_file, criteo_lines(401))
    assert load_dataset("criteo", path=criteo_file).fingerprint != first.fingerprint
    assert list((own_cache / "stores").glob(".unfinished-*/*")) == []
    damaged = own_cache / "stores" / f"criteo-{first.fingerprint[:16]}" / "train.ids.npy"
    write_lines(criteo_file, criteo_lines(400))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert len(load_dataset("criteo", path=criteo_file).train)


@pytest.mark.usefixtures("inline")
def test_a_bad_line_is_named_or_left_out(
    criteo_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 20_000)
    lines = criteo_lines(400)
    lines[250] = lines[250][:40]
    lines[300] = "7" + lines[300][1:]
    write_lines(criteo_file, lines)
    with pytest.raises(UserError) as caught:
        load_dataset("criteo", path=criteo_file)
    trouble = f"{lines[250].count(chr(9)) + 1} columns where 40 are expected"
    way_out = "mend or remove the line, or leave such rows out with data.bad_rows=skip"
    assert str(caught.value) == f"{criteo_file}:251: {trouble}; {way_out}"
    data = load_dataset("criteo", path=criteo_file, bad_rows="skip")
    assert data.skipped_rows == 2
    assert "2 rows left out; the first:" in capsys.readouterr().err
    rest = write_lines(tmp_path / "rest", [line for i, line in enumerate(lines) if i not in (250, 300)])
    assert (
        data.vocabulary != load_dataset("criteo", path=rest).vocabulary
    )  # lines keep their numbers, so their split
    kept = load_dataset("criteo", path=criteo_file, bad_rows="skip", split="temporal")
    assert np.array_equal(kept.train.ids, load_dataset("criteo", path=rest, split="temporal").train.ids)
    with pytest.raises(UserError, match=r"train\.txt:251: "):
        load_dataset("criteo", path=criteo_file)


@pytest.mark.usefixtures("inline")
def test_rows_that_were_left_out_are_looked_at_again(
    criteo_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is unfinished serves both policies; but under ``error`` a bad line is never passed over."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "CHUNK_BYTES", 20_000)
    lines = criteo_lines(400)
    lines[120] = "x"
    write_lines(criteo_file, lines)
    with monkeypatch.context() as patch:
        for place in ("_count", "write_arrays"):  # after the list of chunks was written, and before
            patch.setattr(prepare, place, full)
            with pytest.raises(UserError, match="No space left"):
                load_dataset("criteo", path=criteo_file, bad_rows="skip")
            with pytest.raises(UserError, match=r"train\.txt:121: 1 columns"):
                load_dataset("criteo", path=criteo_file)
    assert load_dataset("criteo", path=criteo_file, bad_rows="skip").skipped_rows == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": None}, "data.path: data set '{name}' needs your own copy"),
        ({"path": "/nosuch"}, "data.path: /nosuch does not exist"),
        ({"split": "time"}, "data.split: 'time' is unknown"),
        ({"bad_rows": "keep"}, "data.bad_rows: 'keep' is unknown (did you mean 'skip'?"),
        ({"memory": "lots"}, "data.memory: got 'lots'; it must be bytes such as 2GB or 500MB"),
        ({"memory": "100MB"}, "data.memory: 100MB is too little for 1 process(es)"),
        ({"memory": "1GB", "workers": 8}, "data.memory: 1GB is too little for 8 process(es)"),
        ({"workers": 0}, "data.workers: must be a whole number of at least 1 or null, got 0"),
        ({"min_count": 0}, "min_count must be a whole number of at least 1, got 0"),
        ({"min_count": 10**6}, "no value occurs often enough in the training rows; lower min_count"),
        ({"max_rows": 3}, "3 rows are too few for the fractions"),
        ({"fields": 3}, "data.fields: data set '{name}' has no such option"),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("name", ["criteo", "avazu"])
@pytest.mark.usefixtures("inline")
def test_mistakes(
    criteo_file: Path, avazu_file: Path, name: str, options: dict[str, Any], message: str
) -> None:
    path = {"criteo": criteo_file, "avazu": avazu_file}[name]
    with pytest.raises(UserError) as caught:
        load_dataset(name, **{"path": path, **options})
    assert message.format(name=name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_in_processes_of_its_own(criteo_file: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, and several chunks on the way between them."""
    monkeypatch.setattr(files, "CHUNK_BYTES", 20_000)
    monkeypatch.setattr(prepare, "CHUNK_BYTES", 20_000)
    data = load_dataset("criteo", path=criteo_file, workers=2)
    check("criteo", criteo_file, data)
    expected = content(data, own_cache)
    shutil.rmtree(own_cache)
    packed = criteo_file.with_suffix(".gz")
    packed.write_bytes(gzip.compress(criteo_file.read_bytes()))
    result = content(load_dataset("criteo", path=packed, workers=2), own_cache)
    assert all(result[name] == expected[name] for name in expected if name != "store.json")


def test_of_several_bad_lines_the_first_is_named(criteo_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 20_000)
    monkeypatch.setattr(prepare, "CHUNK_BYTES", 20_000)
    lines = criteo_lines(400)
    for bad in (52, 53, 100, 179, 399):
        lines[bad] = "x"
    write_lines(criteo_file, lines)
    with pytest.raises(UserError, match=r"train\.txt:53: 1 columns where 40 are expected"):
        load_dataset("criteo", path=criteo_file, workers=2)


def test_a_lost_process_is_told(criteo_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = pool.subprocess.Popen
    code = "import sys; sys.stdin.readline(); sys.exit(9)"
    monkeypatch.setattr(
        pool.subprocess, "Popen", lambda command, **o: original([sys.executable, "-c", code], **o)
    )
    with pytest.raises(
        UserError, match=r"a process that prepares the data ended \(9\); was it out of memory\?"
    ):
        load_dataset("criteo", path=criteo_file)


def test_an_error_of_our_own_keeps_its_traceback(criteo_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = prepare.text_tasks
    monkeypatch.setattr(prepare, "text_tasks", lambda *a: ({**task, "line": "x"} for task in original(*a)))
    with pytest.raises(RuntimeError, match="Traceback"):
        load_dataset("criteo", path=criteo_file)


def test_a_full_disk_is_told_and_nothing_is_lost(
    criteo_file: Path, own_cache: Path, inline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "allocate", full)
        with pytest.raises(
            UserError, match=r"No space left on device; free some room.*what is finished is kept"
        ):
            load_dataset("criteo", path=criteo_file)
    assert not list((own_cache / "stores").glob("criteo-*"))
    assert list((own_cache / "stores").glob(".unfinished-criteo-*/parsed"))
    check("criteo", criteo_file, load_dataset("criteo", path=criteo_file))


def test_what_was_left_unfinished_is_told(
    criteo_file: Path, own_cache: Path, inline: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError):
        load_dataset("criteo", path=criteo_file, min_count=10**6)
    load_dataset("criteo", path=criteo_file)
    (left,) = (path.parent for path in (own_cache / "stores").glob(".unfinished-*/plan.json"))
    assert f"{left} is unfinished, of other files or options; delete it" in capsys.readouterr().err


def test_two_at_once(criteo_file: Path, own_cache: Path) -> None:
    """The second waits for the first, and takes its store."""
    code = "import sys; from ondevice.data import load_dataset as l; print(l('criteo', path=sys.argv[1]).fingerprint)"
    command = [sys.executable, "-c", code, str(criteo_file)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert ended[0][0] == ended[1][0]
    said = "".join(err for _, err in ended)
    assert said.count("preparing the data") == 1
    check("criteo", criteo_file, load_dataset("criteo", path=criteo_file))


def test_made_up_files_are_like_the_real_ones(tmp_path: Path) -> None:
    write_criteo(tmp_path / "a", 2000)
    write_criteo(tmp_path / "b", 2000)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    rows = rows_of("criteo", tmp_path / "a")
    assert len(rows) == 2000
    assert 0.2 < sum(int(row["label"]) for row in rows) / 2000 < 0.3
    assert sum(row["C22"] == "" for row in rows) > 1500
    assert len({row["C3"] for row in rows}) > 800 > 3 == len({row["C9"] for row in rows})


def test_the_record_counts_rows(criteo_file: Path, own_cache: Path, inline: None) -> None:
    data = load_dataset("criteo", path=criteo_file)
    record = json.loads(content(data, own_cache)["store.json"])
    assert record["rows"] == {name: len(data.split(name)) for name in ("train", "valid", "test")}
    assert set(record["files"]) | {"store.json"} == set(content(data, own_cache))
