"""The benchmark on a phone: against a stand-in for the adb client, and what the real one says without a phone."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ondevice.bench.adb import Adb, Result, choose, connect, parse_device
from ondevice.bench.devices import benchmark_bundle, benchmark_run, current, merge, model_sha256, require_all
from ondevice.bench.phone import Plan, read_figures
from ondevice.data.schema import Field, Label, Schema
from ondevice.errors import UserError
from ondevice.files import atomic_json
from ondevice.program import manifest as manifests
from ondevice.program import vocabulary_file
from ondevice.program.bundle import load_bundle
from ondevice.program.vocabulary_file import FieldKeys, Group

from . import sample

ROOT = Path(__file__).resolve().parents[2]
PLAN = Plan(candidates=(1, 100, 1000), threads=(1, 2), seconds=20, poll_seconds=0.01)
FakePhone = Callable[..., Path]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePhone:
    """A function that puts the stand-in on PATH, with a scenario, and returns its folder."""

    def make(*, app: bool = True, **scenario: Any) -> Path:
        folder = tmp_path / "platform-tools"
        (folder / "phone" / "app" / "files").mkdir(parents=True)
        (folder / "phone" / "tmp").mkdir()
        if app:
            (folder / "phone" / "app" / "installed").touch()
        (folder / "scenario.json").write_text(json.dumps(scenario))
        program = folder / "adb"
        code = Path(__file__).with_name("fake_adb.py").read_text(encoding="utf-8")
        program.write_text(f"#!{sys.executable} -IS\n{code}", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return folder

    for name in ("ADB", "ANDROID_SERIAL"):
        monkeypatch.delenv(name, raising=False)
    return make


def write_bundle(folder: Path, program: bytes = b"program") -> Path:
    """A bundle that opens, whose program nothing here runs."""
    folder.mkdir(parents=True)
    vocabulary = vocabulary_file.encode([FieldKeys(0, (Group(1, 1, [5, 9]),))])
    contents = {manifests.PROGRAM: program, manifests.VOCABULARY: vocabulary}
    schema = Schema("shop", (Field("item", "item", "integer"),), Label("label"), "item")
    manifest = {
        "name": f"shop-{folder.name}",
        "schema": manifests.compact_schema(schema),
        "num_rows": 3,
        "files": {name: manifests.file_entry(content) for name, content in contents.items()},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / manifests.MANIFEST).write_bytes(manifests.seal(manifest))
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundles" / "64KB")


def calls(folder: Path) -> list[list[str]]:
    """Every call of the stand-in."""
    return [json.loads(line) for line in (folder / "calls.jsonl").read_text().splitlines()]


def left_on_phone(folder: Path) -> list[str]:
    """Files that a measurement left behind."""
    phone = folder / "phone"
    paths = [*(phone / "tmp").rglob("*"), *(phone / "app" / "files" / "bundles").glob("*")]
    return [str(path) for path in [*paths, *(phone / "app" / "files").glob("latency.json")]]


def run_on_phone(bundle: Path, plan: Plan = PLAN) -> dict[str, Any]:
    quiet: list[str] = []
    return benchmark_bundle(connect("adb", say=quiet.append), bundle, plan, quiet.append)


def test_a_bundle_is_measured_and_the_phone_is_left_as_it_was(fake: FakePhone, bundle: Path) -> None:
    folder = fake()
    shown = folder / "phone/app/files/bundles/64KB"
    shown.mkdir(parents=True)
    (bundle / "notes.txt").write_text("not of the bundle")
    (bundle / "report.json").write_text(json.dumps({"format_version": 1, "label": "64KB", "test_auc": 0.9}))

    result = run_on_phone(bundle)

    measured = result["measured"]
    assert measured["model"] == "Pixel 8"
    assert measured["errors"] == {}
    assert [m["num_threads"] for m in measured["bundles"]["64KB"]["measurements"]] == [1, 2]
    report = json.loads((bundle / "report.json").read_text())
    assert report["test_auc"] == 0.9
    entry = report["devices"]["Pixel 8"]
    assert (entry["android"], entry["abi"]) == ("15", "arm64-v8a")
    first = entry["bundles"]["64KB"]["measurements"][0]
    assert first["rank_us"]["1000"] == {"p50": 100.5, "p95": 210.0, "calls": 200}
    assert (first["load_ms"], first["peak_rss_bytes"]) == (3.25, None)
    assert entry["bundles"]["64KB"]["bytes"] == load_bundle(bundle).total_bytes

    (push,) = [call for call in calls(folder) if "push" in call]
    assert {Path(path).name for path in push[3:-1]} == {"model.pte", "vocabulary.bin", "manifest.json"}
    (start,) = [call[3] for call in calls(folder) if "am start" in call[-1]]
    assert "-W -n org.ondevice.demo/.BenchmarkActivity" in start
    assert "--es candidates 1,100,1000 --es threads 1,2" in start
    assert left_on_phone(folder) == [str(shown)]  # the app's own bundle of that name is not touched


def test_the_app_is_installed_when_it_is_missing(fake: FakePhone, tmp_path: Path) -> None:
    folder = fake(app=False)
    apk = tmp_path / "demo app.apk"
    apk.write_bytes(b"apk")
    said: list[str] = []
    connect("adb:PHONE1", apk, said.append)
    assert [call for call in calls(folder) if "install" in call] == [["-s", "PHONE1", "install", str(apk)]]
    connect("adb", apk, said.append)
    assert len([call for call in calls(folder) if "install" in call]) == 1
    assert "--apk was not needed" in said[-1]


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
    fake: FakePhone, scenario: dict[str, Any], device: str, message: str
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
        ({"another_app": True}, "installed, but it is not org.ondevice.demo"),
        ({"unplug_at": "install", "gone": {"PHONE1": None}}, "went away while installing demo.apk"),
    ],
)
def test_an_install_that_fails(
    fake: FakePhone, tmp_path: Path, scenario: dict[str, Any], message: str
) -> None:
    fake(app=False, **scenario)
    apk = tmp_path / "demo.apk"
    apk.touch()
    with pytest.raises(UserError, match=message):
        connect("adb", apk)
    with pytest.raises(UserError, match=r"--apk nowhere.apk: no such file"):
        connect("adb", "nowhere.apk")


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (
            {"unplug_at": "push", "gone": {"PHONE1": None}},
            r"PHONE1 went away while pushing 64KB \(it is not connected any more\); check the cable",
        ),
        (
            {"never": True, "unplug_at": "cat files/latency.json", "gone": {"PHONE1": "offline"}},
            r"PHONE1 went away while it was measuring \(it is offline now\)",
        ),
        ({"push": "adb: error: No space left on device"}, "pushing 64KB failed: .*No space left on device"),
        ({"run_as": "run-as: package not debuggable: org.ondevice.demo"}, "not debuggable.*debug build"),
        (
            {"start": "Error: Activity class {org.ondevice.demo/.BenchmarkActivity} does not exist."},
            "did not start its benchmark: Error: Activity class .* debug builds",
        ),
        ({"crashes": True}, "the app ended before it had measured; adb logcat -d says why"),
        (
            {"phone_error": "The program needs aten.foo, which this app lacks."},
            "measured nothing: 64KB: The program needs aten.foo, which this app lacks.; export those",
        ),
        ({"latency": {"errors": {"": "It was asked what it cannot do"}}}, "nothing: It was asked"),
        ({"latency_text": "{cut"}, "latency.json is not JSON .*different versions: build it"),
        ({"latency_text": "[]"}, "latency.json is not a JSON object"),
    ],
)
def test_a_measurement_that_fails(
    fake: FakePhone, bundle: Path, scenario: dict[str, Any], message: str
) -> None:
    folder = fake(**scenario)
    with pytest.raises(UserError, match=message) as caught:
        run_on_phone(bundle)
    assert "\n" not in str(caught.value)
    assert not (bundle / "report.json").exists()
    if "gone" not in scenario and "run_as" not in scenario:
        assert left_on_phone(folder) == []


def latency_of(bundle: Path) -> dict[str, Any]:
    """A latency.json that is as it should be, for one number of threads and two of candidates."""
    call = {"p50": 1.0, "p95": 2.0, "calls": 3}
    memory = {"pss_before_bytes": 1, "pss_after_bytes": 2, "peak_rss_bytes": None}
    measurement = {"num_threads": 1, "load_ms": 1.0, **memory, "rank_us": {"1": call, "100": call}}
    entry = {"model_sha256": model_sha256(load_bundle(bundle)), "measurements": [measurement]}
    head = {"format": "ondevice-latency", "format_version": 1, "device": {"model": "Pixel 8"}}
    return {**head, "bundles": {"b": entry}, "errors": {"shop": "another bundle of the app is damaged"}}


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("format_version", 2, "is of format ondevice-latency 2, not ondevice-latency 1"),
        ("device", {}, "has no device.model"),
        ("errors", None, "has no errors"),
        ("bundles", None, "has no bundles;"),
        ("bundles", {}, "has no bundles.b.measurements"),
        ("bundles.b.model_sha256", "0", "has another model_sha256 for b"),
        ("bundles.b.measurements", [], "has not the threads that were asked for"),
        ("bundles.b.measurements.0", None, r"has no b.measurements\[0\].rank_us"),
        ("bundles.b.measurements.0.load_ms", None, r"has no number b.measurements\[0\].load_ms"),
        ("bundles.b.measurements.0.load_ms", True, "has no number .*load_ms"),
        ("bundles.b.measurements.0.load_ms", float("nan"), "has no number .*load_ms"),
        ("bundles.b.measurements.0.pss_after_bytes", "much", "has no number .*pss_after_bytes"),
        ("bundles.b.measurements.0.num_threads", 4, "has not the threads that were asked for"),
        ("bundles.b.measurements.0.rank_us.100", None, r"has no .*measurements\[0\].rank_us.100"),
        ("bundles.b.measurements.0.rank_us.1.p95", -1, "has no number .*rank_us.1.p95"),
    ],
)
def test_every_figure_of_the_phone_is_checked(bundle: Path, where: str, value: Any, message: str) -> None:
    plan, opened = Plan(candidates=(1, 100), threads=(1,)), {"64KB": load_bundle(bundle)}
    latency = latency_of(bundle)
    assert read_figures(latency, {"b": "64KB"}, opened, plan)["errors"] == {}
    *parents, last = where.split(".")
    place: Any = latency
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(last) if isinstance(place, list) else last] = value
    with pytest.raises(UserError, match=message):
        read_figures(latency, {"b": "64KB"}, opened, plan)


def test_a_phone_that_never_answers_and_one_that_answers_another_run(fake: FakePhone, bundle: Path) -> None:
    folder = fake(latency={"run": "yesterday's"})
    with pytest.raises(UserError, match=r"no figures after 0.2 s; keep it unlocked .*--device-timeout"):
        run_on_phone(bundle, Plan(seconds=0.2, poll_seconds=0.01))
    assert left_on_phone(folder) == []


def test_a_call_that_hangs_is_ended(fake: FakePhone, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_adb_that_is_missing(fake: FakePhone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
    fake: FakePhone, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(devices=["A1\tdevice", "192.168.0.9:5555\tdevice"])
    assert parse_device("adb:192.168.0.9:5555") == "192.168.0.9:5555"
    monkeypatch.setenv("ANDROID_SERIAL", "A1")
    assert connect("adb").serial == "A1"
    assert connect("adb:192.168.0.9:5555").serial == "192.168.0.9:5555"
    assert choose({"A1": "device"}, None) == "A1"


def test_some_bundles_that_failed_are_told_after_the_others_are_merged() -> None:
    with pytest.raises(UserError, match=r"not measured on Pixel 8: fp32: Out of memory.; export those"):
        require_all({"model": "Pixel 8", "errors": {"fp32": "Out of memory."}})
    require_all({"model": "Pixel 8", "errors": {}})


def test_figures_of_other_programs_than_there_are_now_are_dropped() -> None:
    devices = {
        "Pixel 8": {"android": "15", "bundles": {"a": {"model_sha256": "1"}, "b": {"model_sha256": "2"}}},
        "Old": {"android": "8", "bundles": {"b": {"model_sha256": "2"}}},
    }
    kept = current(devices, {"a": "1", "b": "new"})
    assert kept == {"Pixel 8": {"android": "15", "bundles": {"a": {"model_sha256": "1"}}}}
    merged = merge(kept, {"model": "Pixel 8", "android": "16", "bundles": {"b": {"model_sha256": "new"}}})
    assert merged["Pixel 8"]["android"] == "16"
    assert list(merged["Pixel 8"]["bundles"]) == ["a", "b"]


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("matplotlib", "torchao", "executorch")),
    reason="the benchmark of a run needs matplotlib, torchao and executorch",
)
def test_a_phone_is_merged_into_the_report_of_a_run(
    fake: FakePhone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ondevice.bench.benchmark import Settings

    run = SimpleNamespace(path=tmp_path / "run", metrics={"history": sample.report()["history"]})
    monkeypatch.setattr("ondevice.training.run.Run", lambda path: run)
    monkeypatch.setattr("ondevice.bench.benchmark.field_sizes", lambda run, label: sample.report()["fields"])
    bundle = write_bundle(run.path / "bundles" / "100")
    report = sample.report()
    entry = {**report["budgets"]["20000"], "label": "100", "model_sha256": model_sha256(load_bundle(bundle))}
    report |= {"headline": "100", "budgets": {"100": entry}}
    atomic_json(run.path / "report.json", {k: v for k, v in report.items() if k not in ("history", "fields")})
    fake()
    said: list[str] = []

    result = benchmark_run(
        connect("adb", say=said.append),
        run.path,
        bundles=(),
        bundle=None,
        plan=PLAN,
        settings=Settings(),
        say=said.append,
    )

    assert any("without --device they are measured anew" in text for text in said)
    merged = json.loads((run.path / "report.json").read_text())
    assert merged["baselines"] == report["baselines"]
    assert merged["devices"] == result["devices"]
    assert list(merged["devices"]["Pixel 8"]["bundles"]) == ["100"]
    assert json.loads((bundle / "report.json").read_text())["devices"] == merged["devices"]
    page = (run.path / "report.html").read_text()
    section = page[page.index("On the phone") : page.index("<h2>Parity")]
    assert "Pixel 8 (Android 15, Tensor G3, arm64-v8a" in section
    assert section.count("100 µs · 210 µs") == 6  # two numbers of threads, three of candidates
    assert "<td>3.2 ms</td><td>51.5 MB (+1.50 MB)</td>" in section


@pytest.mark.parametrize(
    ("arguments", "scenario", "message"),
    [
        (["BUNDLE", "--device", "adb"], {"devices": []}, "no phone is connected"),
        (["BUNDLE", "--device", "adb", "--threads", "0"], {}, "--threads: from 1 to 64"),
        (["BUNDLE", "--device", "adb", "--budget", "64KB"], {}, "give no --bundle and no --budget"),
        (["--device", "adb"], {}, "give a run directory or a bundle"),
        (["--device", "adb", "--bundle", "BUNDLE", "--device-timeout", "0"], {}, "more than 0 seconds"),
        (["BUNDLE", "--apk", "demo.apk"], {}, "--apk: only used with --device adb"),
        (["--device", "adb", "--bundle", "BUNDLE"], {}, None),
    ],
)
def test_the_script(
    fake: FakePhone, bundle: Path, arguments: list[str], scenario: dict[str, Any], message: str | None
) -> None:
    fake(**scenario)
    words = [str(bundle) if word == "BUNDLE" else word for word in arguments]
    command = [sys.executable, str(ROOT / "export" / "benchmark.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if message is None:
        assert (done.returncode, done.stderr) == (0, "")
        assert "Pixel 8\n64KB  1 threads" in done.stdout
        assert "1000: 100 µs · 210 µs" in done.stdout
        assert f"report: {bundle / 'report.json'}" in done.stdout
        return
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(
    shutil.which(os.environ.get("ADB") or "adb") is None,
    reason="the real adb client is not installed (apt install adb)",
)
def test_the_real_client_without_a_phone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(random.randint(20000, 50000)))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    adb = Adb.find()
    try:
        if adb.devices():
            pytest.skip("a phone is connected")
        with pytest.raises(UserError, match="no phone is connected"):
            connect("adb")
        with pytest.raises(UserError, match="no phone is connected"):
            connect("adb:SERIAL")
        assert adb.call("-s", "SERIAL", "shell", "true").code == 1
    finally:
        adb.call("kill-server")
