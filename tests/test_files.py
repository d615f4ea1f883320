"""Files and folders that are either whole or as they were."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ondevice import files
from ondevice.errors import UserError, run_script
from ondevice.files import atomic_directory, atomic_json, atomic_write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_content_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    atomic_write(path, "é")
    assert path.read_bytes() == "é".encode()
    atomic_write(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    atomic_json(path, {"a": [1, "é"]})
    assert path.read_text(encoding="utf-8") == '{\n  "a": [\n    1,\n    "é"\n  ]\n}\n'
    assert names(tmp_path / "deep") == ["file"]


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    atomic_write(path, "old")

    def no_room(handle: int) -> None:
        raise OSError("no room")

    monkeypatch.setattr(files.os, "fsync", no_room)
    with pytest.raises(OSError, match="no room"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_folder_is_filled_and_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    for content in ("one", "two"):
        with atomic_directory(target) as building:
            (building / content).write_text(content)
            assert building != target
            assert not (target / content).exists()
        assert names(target) == [content]
    assert names(tmp_path / "deep") == ["folder"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0o007])
def test_who_may_read_is_what_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        atomic_write(tmp_path / "file", "new")
        atomic_write(tmp_path / "file", "replaced")
        for _ in range(2):
            with atomic_directory(tmp_path / "folder") as building:
                (building / "inside").write_text("")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"file": 0o666 & ~umask, "folder": 0o777 & ~umask, "inside": 0o666 & ~umask}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_folder(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "folder"
    with pytest.raises(error), atomic_directory(target):
        raise error
    assert names(tmp_path) == []
    with atomic_directory(target) as building:
        (building / "old").write_text("old")
    with pytest.raises(error), atomic_directory(target) as building:  # noqa: PT012
        (building / "new").write_text("new")
        raise error
    assert names(tmp_path) == ["folder"]
    assert names(target) == ["old"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "folder"
    with atomic_directory(target) as building:
        (building / "old").write_text("old")
    replace = os.replace

    def no_new_one(source: object, goal: object) -> None:
        if Path(str(goal)) == target and not (Path(str(source)) / "old").exists():
            raise OSError("no room")
        replace(source, goal)  # type: ignore[arg-type]

    monkeypatch.setattr(files.os, "replace", no_new_one)
    with pytest.raises(OSError, match="no room"), atomic_directory(target) as building:
        (building / "new").write_text("new")
    assert names(target) == ["old"]
    assert names(tmp_path) == ["folder"]


def failing(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("main", "code", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (lambda: failing(UserError("line one\n  and two")), 2, "error: line one and two\n"),
        (lambda: failing(KeyboardInterrupt()), 130, "interrupted\n"),
    ],
)
def test_scripts_end_with_one_line(
    main: object, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_script(main)  # type: ignore[arg-type]
    assert ended.value.code == code
    assert capsys.readouterr().err == said


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="a bug"):
        run_script(lambda: failing(ValueError("a bug")))
    assert "ondevice" in sys.modules
