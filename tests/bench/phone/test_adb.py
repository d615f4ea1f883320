"""Which phone is meant, and the app on it: against a stand-in for the adb client."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.bench.phone.adb import APP_VERSION, Adb, Result, choose, connect, parse_device
from ondevice.errors import UserError

from .phones import calls

FakePhones = Callable[..., Path]


def test_the_app_is_installed_when_it_is_missing(fake: FakePhones, tmp_path: Path) -> None:
    folder = fake(app=False)
    apk = tmp_path / "demo app.apk"
    apk.write_bytes(b"apk")
    said: list[str] = []
    connect("adb:PHONE1", apk, said.append)
    installs = [call for call in calls(folder) if "install" in call]
    assert installs == [["-s", "PHONE1", "install", "-r", "-d", "-t", str(apk)]]
    assert "installed org.ondevice.demo by" in said[-1]
    connect("adb", apk, said.append)
    assert len([call for call in calls(folder) if "install" in call]) == 1
    assert said[-1].endswith(f"has org.ondevice.demo, the same as {apk}")


def test_an_app_that_is_another_is_updated(fake: FakePhones, tmp_path: Path) -> None:
    folder = fake(version=1)
    with pytest.raises(
        UserError, match=r"it has version 1 of org\.ondevice\.demo, and this .* version 2; build it"
    ):
        connect("adb")
    apk = tmp_path / "demo.apk"
    apk.write_bytes(b"apk")
    said: list[str] = []
    connect("adb", apk, said.append)
    assert "updated org.ondevice.demo by" in said[-1]
    apk.write_bytes(b"changed, but of the same version")
    connect("adb", apk, said.append)
    assert len([call for call in calls(folder) if "install" in call]) == 2
    (folder / "scenario.json").write_text(json.dumps({"new_version": 1}))
    apk.write_bytes(b"of last year")
    with pytest.raises(UserError, match=r"demo\.apk holds version 1 of org\.ondevice\.demo"):
        connect("adb", apk)


def test_the_version_is_the_one_that_the_app_has() -> None:
    build = Path(__file__).resolve().parents[3] / "android_demo" / "app" / "build.gradle.kts"
    assert f"versionCode = {APP_VERSION}\n" in build.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("scenario", "device", "message"),
    [
        ({"devices": []}, "adb", "no phone is connected; plug one in with USB debugging"),
        (
            {"devices": ["A1\tdevice", "B2\toffline"]},
            "adb",
            r"2 phones are connected: A1 \(device\), B2 \(offline\); name one with --device adb:SERIAL",
        ),
        ({}, "adb:OTHER", r"phone OTHER is not connected; adb devices lists PHONE1 \(device\)"),
        ({"devices": ["A1\tunauthorized"]}, "adb", "A1: unauthorized: .*answer 'Allow USB debugging"),
        ({"devices": ["A1\toffline"]}, "adb", "A1: offline: .*plug it in again"),
        (
            {"devices": ["A1\tno permissions (user in plugdev group)"]},
            "adb",
            "A1: no permissions: .*udev",
        ),
        ({"devices": ["A1\trecovery"]}, "adb:A1", "A1 is in state 'recovery'; start Android"),
        ({"server": "adb: failed to check server version"}, "adb", "adb devices failed: .*kill-server"),
        ({"app": False}, "adb", "org.ondevice.demo is not installed; build it as .*--apk demo.apk"),
        ({}, "usb", "--device usb: give adb, or adb:SERIAL"),
        ({}, "adb:", "--device adb:: give adb, or adb:SERIAL"),
    ],
)
def test_what_is_no_usable_phone(
    fake: FakePhones, scenario: dict[str, Any], device: str, message: str
) -> None:
    fake(**scenario)
    with pytest.raises(UserError, match=message):
        connect(device)


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (
            {"install": "Failure [INSTALL_FAILED_INSUFFICIENT_STORAGE]"},
            "was not installed: .*INSUFFICIENT_STORAGE.*free some room",
        ),
        (
            {"install": "Failure [INSTALL_FAILED_UPDATE_INCOMPATIBLE: signatures do not match]"},
            "signed by another key: remove it with adb uninstall org.ondevice.demo",
        ),
        ({"another_app": True}, "installed, but it is not org.ondevice.demo"),
        ({"unplug_at": "install", "gone": {"PHONE1": None}}, "went away while installing demo.apk"),
    ],
)
def test_an_install_that_fails(
    fake: FakePhones, tmp_path: Path, scenario: dict[str, Any], message: str
) -> None:
    fake(app=False, **scenario)
    apk = tmp_path / "demo.apk"
    apk.touch()
    with pytest.raises(UserError, match=message):
        connect("adb", apk)
    with pytest.raises(UserError, match=r"--apk nowhere.apk: no such file"):
        connect("adb", "nowhere.apk")


def test_a_call_that_hangs_is_ended(fake: FakePhones, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fake(hang_at="pm path")
    call, hanging = Adb.call, "pm path"

    def impatient(self: Adb, *words: str, seconds: float = 30.0) -> Result:
        return call(self, *words, seconds=0.2 if hanging in " ".join(words) else seconds)

    monkeypatch.setattr(Adb, "call", impatient)
    with pytest.raises(UserError, match="PHONE1: no answer within 30 s while looking for the app; unlock"):
        connect("adb")
    hanging = "devices"
    (folder / "scenario.json").write_text(json.dumps({"hang_at": hanging}))
    with pytest.raises(UserError, match=r"adb devices: no answer within 0.2 s; run adb kill-server"):
        connect("adb")


def test_adb_that_is_missing(fake: FakePhones, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="adb is not installed, or not on PATH; install Android's platform"):
        connect("adb")
    monkeypatch.setenv("ADB", "/nowhere/adb")
    with pytest.raises(UserError, match="ADB=/nowhere/adb: no such program"):
        connect("adb")
    broken = tmp_path / "adb"
    broken.write_bytes(b"\x7fELF of another processor")
    broken.chmod(0o755)
    monkeypatch.setenv("ADB", str(broken))
    with pytest.raises(UserError, match=r"cannot be run .*install adb again"):
        connect("adb")


def test_the_serial_comes_from_the_option_then_the_environment(
    fake: FakePhones, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(devices=["A1\tdevice", "192.168.0.9:5555\tdevice"])
    assert parse_device("adb:192.168.0.9:5555") == "192.168.0.9:5555"
    monkeypatch.setenv("ANDROID_SERIAL", "A1")
    assert connect("adb").serial == "A1"
    assert connect("adb:192.168.0.9:5555").serial == "192.168.0.9:5555"
    assert choose({"A1": "device"}, None) == "A1"
