"""The cache is listed, and old stores are removed; downloads only by name."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ondevice.cli.main import call
from ondevice.data.cache import entries, remove
from ondevice.errors import UserError


@pytest.fixture
def cache(own_cache: Path) -> Path:
    for name, days in (
        ("stores/old", 40),
        ("stores/new", 1),
        ("stores/.unfinished-x", 50),
        ("sources/m", 90),
    ):
        folder = own_cache / name
        folder.mkdir(parents=True)
        (folder / "rows").write_bytes(bytes(100))
        os.utime(folder, (time.time() - days * 86400,) * 2)
    (own_cache / "tables").mkdir()
    (own_cache / "tables" / "t.parquet").write_bytes(bytes(7))
    return own_cache


def names() -> list[tuple[str, str, int]]:
    return [(entry.path.name, entry.kind, entry.size) for entry in entries()]


def test_what_is_there(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert names() == [
        ("m", "source", 100),
        (".unfinished-x", "unfinished", 100),
        ("old", "store", 100),
        ("new", "store", 100),
        ("t.parquet", "table", 7),
    ]
    call("cache", [])
    said = capsys.readouterr().out
    assert "store             100 bytes  opened  40.0 days ago  old" in said
    assert "407 bytes in all" in said


def test_what_is_old_goes(cache: Path) -> None:
    assert {entry.path.name for entry in remove([], 30)} == {"old", ".unfinished-x"}
    assert {name for name, *_ in names()} == {"m", "new", "t.parquet"}
    assert [entry.path.name for entry in remove(["m", "t.parquet"], None)] == ["m", "t.parquet"]
    assert {name for name, *_ in names()} == {"new"}
    with pytest.raises(UserError, match=r"--remove nwe: .* holds no such entry .did you mean 'new'"):
        remove(["nwe"], None)
