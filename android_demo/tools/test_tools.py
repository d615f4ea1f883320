"""Tests of the tools that need no toolchain: ``pytest android_demo/tools``."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import add_bundles
import arm64
import build_apk
import desktop_engine
import toolchain
import verify


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "ours"
    folder.mkdir()
    (folder / "model.pte").write_bytes(b"p" * 1001)
    (folder / "manifest.json").write_text(json.dumps({"files": {"model.pte": {}}}))
    (folder / "report.json").write_text("{}")
    return folder


def data_start(archive: Path, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin, read from its local header."""
    with archive.open("rb") as file:
        file.seek(entry.header_offset + 26)
        name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
    return entry.header_offset + 30 + name_bytes + extra_bytes


def test_pack_stores_and_aligns(tmp_path: Path) -> None:
    entries = {f"a{'x' * i}.{suffix}": bytes(i * 7) for i in range(9) for suffix in ("pte", "arsc", "dex")}
    first, second = tmp_path / "1.apk", tmp_path / "2.apk"
    build_apk.pack(entries, first)
    build_apk.pack(entries, second)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as apk:
        assert apk.testzip() is None
        assert {name: apk.read(name) for name in apk.namelist()} == entries
        for entry in apk.infolist():
            stored = not entry.filename.endswith(".dex")
            assert (entry.compress_type == zipfile.ZIP_STORED) == stored
            if stored:
                assert data_start(first, entry) % 4 == 0


def test_add_bundles_copies_what_the_manifest_names(tmp_path: Path, bundle: Path) -> None:
    assets = tmp_path / "assets"
    assert add_bundles.main([str(bundle), "--assets", str(assets)]) == 0
    assert sorted(path.name for path in (assets / "ours").iterdir()) == ["manifest.json", "model.pte"]
    assert add_bundles.main([f"int8={bundle}", "--assets", str(assets), "--keep"]) == 0
    assert sorted(path.name for path in assets.iterdir()) == ["int8", "ours"]
    assert add_bundles.main([f"fp32={bundle}", "--assets", str(assets)]) == 0
    assert [path.name for path in assets.iterdir()] == ["fp32"]


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a b"])
def test_add_bundles_refuses_names(
    tmp_path: Path, bundle: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add_bundles.main([f"{name}={bundle}", "--assets", str(tmp_path / "assets")]) == 2
    assert "cannot name a bundle" in capsys.readouterr().err


def test_add_bundles_refuses_what_is_no_bundle(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assets = ["--assets", str(tmp_path / "assets")]
    assert add_bundles.main([str(tmp_path / "none"), *assets]) == 2
    assert "no manifest.json" in capsys.readouterr().err
    assert add_bundles.main([str(bundle), str(bundle), *assets]) == 2
    assert "two bundles" in capsys.readouterr().err
    (bundle / "model.pte").unlink()
    assert add_bundles.main([str(bundle), *assets]) == 2
    assert "model.pte is missing" in capsys.readouterr().err


def test_a_piece_of_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONDEVICE_CACHE", str(tmp_path))

    def client(spec: str, folder: Path) -> Path:
        (folder / "file").write_text("other")
        return folder / "file"

    monkeypatch.setitem(toolchain._CLIENTS, "apt", client)
    with pytest.raises(toolchain.ToolError, match="not the pinned"):
        toolchain.fetch("aapt")
    assert not list((tmp_path / "files").iterdir())


@pytest.mark.parametrize("name", ["zig", "java-arm64"])
def test_pip_takes_wheels_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(words: list[str], *_: object, **__: object) -> str:
        asked.append([str(word) for word in words])
        (tmp_path / "some.whl").touch()
        return ""

    monkeypatch.setattr(toolchain, "run", run)
    piece = toolchain.PIECES[name]
    toolchain._CLIENTS[piece.client](piece.spec, tmp_path)
    assert "--only-binary=:all:" in asked[0]
    assert "--no-deps" in asked[0]


def test_every_piece_has_its_hash_and_a_client() -> None:
    assert len(toolchain.PIECES) == sum(map(len, toolchain.SECTIONS.values()))
    for name, piece in toolchain.PIECES.items():
        assert len(piece.sha256) == 64, name
        assert piece.client in toolchain._CLIENTS, name
    assert toolchain.label_of(["fbjni"]) != toolchain.label_of(["runtime"])


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (
            toolchain.Unavailable("fetching adb failed:\nno route"),
            0,
            "core: SKIPPED: fetching adb failed: no route",
        ),
        (toolchain.ToolError("two tests failed"), 1, "core: FAILED: two tests failed"),
    ],
)
def test_a_part_that_cannot_be_fetched_is_skipped_and_one_that_fails_is_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
    line: str,
) -> None:
    def part(options: verify.Options) -> str:
        raise error

    monkeypatch.setitem(verify.PARTS, "core", part)
    monkeypatch.setattr(verify.platform, "system", lambda: "Linux")
    monkeypatch.setattr(verify.platform, "machine", lambda: "x86_64")
    assert verify.main(["core", str(tmp_path)]) == status
    printed = capsys.readouterr()
    assert f"{printed.out}{printed.err}" == f"{line}\n"
    monkeypatch.setattr(verify.platform, "machine", lambda: "aarch64")
    assert verify.main(["core", str(tmp_path)]) == 0
    assert "SKIPPED: the pieces are for x86_64 Linux" in capsys.readouterr().out


def test_bundles_without_data_are_a_reason_to_skip(tmp_path: Path) -> None:
    options = verify.Options(tmp_path, None)
    with pytest.raises(toolchain.ToolError, match=r"run export_bundles\.py"):
        options.of("ours")
    (tmp_path / "unavailable.txt").write_text("cannot get movielens_1m\n")
    with pytest.raises(toolchain.Unavailable, match="cannot get movielens_1m"):
        options.of("ours")


def test_a_rescored_bundle_is_signed_anew(tmp_path: Path, bundle: Path) -> None:
    manifest = {"sha256": "1" * 64, "golden": [{"score": 0.25}, {"score": 0.5}], "name": "é"}
    arm64.write_rescored(bundle, manifest, [0.125, 0.75], tmp_path / "other")
    text = (tmp_path / "other" / "manifest.json").read_text(encoding="utf-8")
    signed = json.loads(text)
    assert [case["score"] for case in signed["golden"]] == [0.125, 0.75]
    zeroed = text.replace(signed["sha256"], "0" * 64)
    assert hashlib.sha256(zeroed.encode()).hexdigest() == signed["sha256"]
    assert text.startswith('{"sha256":"')
    assert (tmp_path / "other" / "model.pte").read_bytes() == (bundle / "model.pte").read_bytes()


def test_golden_scores_are_emulated_once_for_the_same_bundles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [*verify.COMPARED, verify.NEXT, verify.NEXT_GAPS, "tables"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(name)
    asked = []

    def golden(bundles: dict[str, Path], tolerance: float, rescored: Path) -> dict[str, arm64.Golden]:
        asked.append(list(bundles))
        rescored.mkdir(exist_ok=True)
        return {name: {"cases": 1, "max_abs": 0.0} for name in bundles}

    monkeypatch.setattr(arm64, "golden", golden)
    options = verify.Options(tmp_path, None)
    assert verify.arm64_golden(options) == verify.arm64_golden(options)
    assert asked == [names]
    (tmp_path / "ours" / "manifest.json").write_text("another")
    verify.arm64_golden(options)
    assert len(asked) == 2


def test_run_reports_in_one_place() -> None:
    with pytest.raises(toolchain.Unavailable, match="is not installed"):
        toolchain.run(["no-such-program"], "trying")
    with pytest.raises(toolchain.Unavailable, match="ended with 3"):
        toolchain.run(["sh", "-c", "exit 3"], "trying", failure=toolchain.Unavailable)
    with pytest.raises(toolchain.ToolError, match=r"trying failed \(sh ended with 3\):\nhello"):
        toolchain.run(["sh", "-c", "echo hello; exit 3"], "trying")


def test_counts_are_compared_with_what_was_expected() -> None:
    expected = {"ours": {"100": 1000, "1000": 9000}}
    assert arm64.check({"ours": {"100": 1000, "1000": 8000}}, expected, 0.0) == []
    assert arm64.check({"ours": {"100": 1010, "1000": 9000}}, expected, 0.01) == []
    assert arm64.check({"ours": {"100": 1011, "1000": 9000}}, expected, 0.01) == [
        "ours, 100 candidates: 1,011 instructions, expected 1,000"
    ]
    assert len(arm64.check({"other": {"100": 1}}, expected, 0.0)) == 3


def elf(*entries: tuple[int, int]) -> bytes:
    """A library of nothing but one program header and a dynamic section."""
    header = b"\x7fELF\x02\x01" + bytes(26) + struct.pack("<QQIHHHHHH", 64, 0, 0, 64, 56, 1, 0, 0, 0)
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    program = struct.pack("<IIQQQQQQ", 2, 0, 120, 120, 120, len(dynamic), len(dynamic), 8)
    return header + program + dynamic


def test_symbol_versions_are_removed_from_a_library() -> None:
    needed, versym, verneed, number = (1, 7), (0x6FFFFFF0, 8), (0x6FFFFFFE, 9), (0x6FFFFFFF, 2)
    after = elf(needed, (5, 1), (0, 0), (0, 0), (0, 0), (0, 0))
    assert desktop_engine.without_versions(elf(needed, versym, verneed, number, (5, 1), (0, 0))) == after
    with pytest.raises(toolchain.ToolError, match="no symbol versions"):
        desktop_engine.without_versions(after)
    with pytest.raises(toolchain.ToolError, match="no 64-bit ELF"):
        desktop_engine.without_versions(b"not a library")
