"""Files are found, unpacked and cut into whole lines; a broken one is named with its line."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data.preparation import files
from ondevice.data.preparation.files import Budget, find_files, natural, text_tasks
from ondevice.data.preparation.plan import Plan
from ondevice.data.preparation.text import TextFormat
from ondevice.data.schema import Field, Label, Schema
from ondevice.data.sets import avazu, criteo
from ondevice.errors import UserError

from .rows import HEADER, patient

FORM = TextFormat(",", {"y": "label", "n": "integer"})
NAMED = TextFormat(",", {"y": "label", "n": "integer"}, header=True)
SCHEMA = Schema("small", (Field("n", "context", "integer"),), Label(column="y"))


def make_plan(folder: Path, path: Path, form: TextFormat = FORM) -> Plan:
    folder.mkdir(exist_ok=True)
    return Plan(folder, SCHEMA, form.to_dict(), [path], "random", 0, (0.8, 0.1, 0.1), None, "error")


def stretches(plan: Plan, limit: int | None = None) -> list[tuple[bytes, int, int]]:
    """Content, first line and number of lines of each task."""
    result = []
    for task in text_tasks(plan, 0, Budget(limit), {}):
        content = Path(task["path"]).read_bytes()[task["offset"] : task["offset"] + task["size"]]
        result.append((content, task["line"], task["num_lines"]))
        assert task["temporary"] == str(task["path"]).startswith(str(plan.folder))
    return result


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize("pack", [bytes, packed], ids=["plain", "gzip"])
@patient
@given(lines=st.lists(st.text("01,\r", max_size=6), min_size=1, max_size=20), last=st.booleans())
def test_the_stretches_are_the_file(
    tmp_path_factory: pytest.TempPathFactory, pack: Any, lines: list[str], last: bool
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    content = ("\n".join(lines) + ("\n" if last else "")).encode()
    if not content:
        return
    (folder / "data").write_bytes(pack(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK_BYTES", 8)
        patch.setattr(files, "_READ_BYTES", 3)
        result = stretches(make_plan(folder / "plan", folder / "data"))
    assert b"".join(block for block, _, _ in result) == content
    line = 0
    for block, first, num_lines in result[:-1]:
        assert (first, num_lines) == (line, block.count(b"\n"))
        assert block.endswith(b"\n")
        assert len(block) <= 8
        line += num_lines
    assert result[-1][1] == line
    assert line + result[-1][2] == content.count(b"\n") + (not content.endswith(b"\n"))


@pytest.mark.parametrize("pack", [bytes, packed], ids=["plain", "gzip"])
@pytest.mark.parametrize("limit", [1, 4, 7, 8, 100])
def test_only_so_many_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Any, limit: int) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 10)
    lines = [f"{i % 2},{i}\n".encode() for i in range(8)]
    (tmp_path / "data").write_bytes(pack(b"".join(lines)))
    result = stretches(make_plan(tmp_path / "plan", tmp_path / "data"), limit)
    assert b"".join(block for block, _, _ in result) == b"".join(lines[:limit])
    assert sum(num_lines for _, _, num_lines in result) == min(limit, 8)


def test_gzip_of_several_members_with_padding(tmp_path: Path) -> None:
    content = packed(b"0,1\n1,") + b"\0" * 5 + packed(b"2\n") + b"\0" * 3
    (tmp_path / "data.gz").write_bytes(content)
    assert [s[0] for s in stretches(make_plan(tmp_path / "plan", tmp_path / "data.gz"))] == [b"0,1\n1,2\n"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[: len(c) // 2], "the compressed data end in the middle; get the file again"),
        (lambda c: c[:-4], "the compressed data end in the middle; get the file again"),
        (
            lambda c: c[:-8] + b"\0\0\0\0" + c[-4:],
            "the compressed data are damaged here or soon after (Error -3",
        ),
        (lambda c: c + b"tail", "the compressed data are damaged here or soon after (Error -3"),
    ],
    ids=["half", "no length", "checksum", "tail"],
)
def test_a_broken_gzip_file_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, message: str
) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 100)
    monkeypatch.setattr(files, "_READ_BYTES", 50)
    lines = b"".join(b"%d,%d\n" % (i % 2, i * i * 7919 % 100_003) for i in range(500))
    broken = change(packed(lines))
    (tmp_path / "data.gz").write_bytes(broken)
    half = zlib.decompressobj(31).decompress(packed(lines)[: len(packed(lines)) // 2]).count(b"\n")
    expected = range(half, half + 2) if len(broken) < len(packed(lines)) // 2 + 9 else range(480, 502)
    with pytest.raises(UserError) as caught:
        stretches(make_plan(tmp_path / "plan", tmp_path / "data.gz"))
    assert message in str(caught.value)
    path, line, _ = str(caught.value).split(":", 2)
    assert path == str(tmp_path / "data.gz")
    assert int(line) in expected


def test_a_name_that_says_gzip(tmp_path: Path) -> None:
    (tmp_path / "data.gz").write_bytes(b"0,1\n")
    with pytest.raises(UserError, match=r"data\.gz: is no gzip file"):
        stretches(make_plan(tmp_path / "plan", tmp_path / "data.gz"))


@pytest.mark.parametrize("mode", ["w", "w:gz", "zip"])
def test_an_archive(tmp_path: Path, mode: Any) -> None:
    """As they come from where they are distributed."""
    (tmp_path / "train.txt").write_bytes(b"0,1\n")
    path = tmp_path / "archive"
    if mode == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(tmp_path / "train.txt")
    else:
        with tarfile.open(path, mode) as tar:
            tar.add(tmp_path / "train.txt")
    with pytest.raises(UserError, match="archive: is an archive; unpack it"):
        stretches(make_plan(tmp_path / "plan", path))


@pytest.mark.parametrize("content", [b"", packed(b""), b"\xef\xbb\xbf"], ids=["plain", "gzip", "mark"])
def test_an_empty_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data").write_bytes(content)
    with pytest.raises(UserError, match="data: holds no rows; the file is empty or cut short"):
        stretches(make_plan(tmp_path / "plan", tmp_path / "data"))


def test_a_line_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 10)
    (tmp_path / "data").write_bytes(b"0,1\n" + b"1" * 20)
    with pytest.raises(UserError, match="data:2: a line of more than 10 bytes"):
        stretches(make_plan(tmp_path / "plan", tmp_path / "data"))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_header_is_no_row(tmp_path: Path, mark: bytes) -> None:
    (tmp_path / "data").write_bytes(mark + b"y,n\r\n0,1\n")
    assert stretches(make_plan(tmp_path / "plan", tmp_path / "data", NAMED)) == [(b"0,1\n", 1, 1)]
    (tmp_path / "piece").write_bytes(mark + b"0,1\n")
    assert stretches(make_plan(tmp_path / "plan", tmp_path / "piece", NAMED)) == [(b"0,1\n", 0, 1)]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (HEADER.replace(",click", ""), "data:1: the header lacks the column click; expected id,click,hour,"),
        (HEADER[:40], "data:1: the header lacks the column site_domain, site_category"),
        (HEADER.replace("C20,C21", "C21,C20"), "data:1: the header has other columns, or in another order"),
    ],
)
def test_another_header(tmp_path: Path, header: str, message: str) -> None:
    (tmp_path / "data").write_text(header + "\n1,2\n")
    with pytest.raises(UserError) as caught:
        stretches(make_plan(tmp_path / "plan", tmp_path / "data", avazu.FORMAT))
    assert message in str(caught.value)


def test_a_header_alone(tmp_path: Path) -> None:
    (tmp_path / "data").write_text(HEADER + "\n")
    with pytest.raises(UserError, match="holds no rows"):
        stretches(make_plan(tmp_path / "plan", tmp_path / "data", avazu.FORMAT))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.txt", "test.txt", "readme.txt"], ["train.txt"]),
        (["train.txt.gz", "test.txt.gz", "readme.txt"], ["train.txt.gz"]),
        (["day_10", "day_2", "day_0.gz", "notes"], ["day_0.gz", "day_2", "day_10"]),
        (
            ["part-2.tsv", "part-10.tsv", "part-1.tsv", "test.tsv"],
            ["part-1.tsv", "part-2.tsv", "part-10.tsv"],
        ),
    ],
)
def test_the_files_of_a_folder(tmp_path: Path, names: list[str], expected: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in find_files(tmp_path, criteo.FILES, "Criteo")] == expected
    assert find_files(tmp_path / names[0], criteo.FILES, "Criteo") == [tmp_path / names[0]]


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nosuch does not exist; name the file of Criteo"):
        find_files(tmp_path / "nosuch", criteo.FILES, "Criteo")
    with pytest.raises(UserError, match="holds no file of Avazu"):
        find_files(tmp_path, avazu.FILES, "Avazu")
    for name in ("day_0", "day_0.gz"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"holds day_0 and day_0\.gz; keep one of them"):
        find_files(tmp_path, criteo.FILES, "Criteo")


def test_days_are_in_the_order_of_their_numbers() -> None:
    assert sorted([f"day_{i}" for i in range(24)], key=natural) == [f"day_{i}" for i in range(24)]
    assert sorted(["b1", "a", "a2", "a10", "1", "02"], key=natural) == ["1", "02", "a", "a2", "a10", "b1"]
