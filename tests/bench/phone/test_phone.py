"""Bundles measured on a phone: against a stand-in for the adb client and the app."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ondevice.bench.phone.adb import connect
from ondevice.bench.phone.devices import benchmark_bundle, text_table
from ondevice.bench.phone.phone import Plan, read_figures
from ondevice.bench.report.report import model_sha256
from ondevice.errors import UserError
from ondevice.program.bundle import load_bundle

from .phones import PLAN, calls, left_on_phone, run_on_phone

FakePhones = Callable[..., Path]


def test_a_bundle_is_measured_and_the_phone_is_left_as_it_was(fake: FakePhones, bundle: Path) -> None:
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
    assert first["rank_us"]["1000"] == {"p50": 100.5, "p95": 210.0, "calls": 50}
    assert (first["place"], first["before"]["battery_celsius"], first["after"]["thermal_status"]) == (
        1,
        31.5,
        0,
    )
    assert (first["load_ms"], first["peak_rss_bytes"]) == (3.25, None)
    assert entry["bundles"]["64KB"]["bytes"] == load_bundle(bundle).total_bytes

    (push,) = [call for call in calls(folder) if "push" in call]
    assert {Path(path).name for path in push[3:-1]} == {"model.pte", "vocabulary.bin", "manifest.json"}
    (start,) = [call[3] for call in calls(folder) if "am start" in call[-1]]
    assert "-W -n org.ondevice.demo/.BenchmarkActivity" in start
    assert "--es candidates 1,100,1000 --es threads 1,2 --ei warmups 20 --ei calls 50" in start
    lines = [call[-1] for call in calls(folder)]
    assert lines.index("input keyevent KEYCODE_WAKEUP") < lines.index(start)
    assert left_on_phone(folder) == [str(shown)]  # the app's own bundle of that name is not touched


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
        ({"crashes": True}, "the app ended before it had measured anything; adb logcat -d says why"),
        (
            {"stops": True, "dies": True},
            "the app ended stopped at 2 of 3, bench0-64KB with 1 thread, since the screen went off; a phone may end",
        ),
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
    fake: FakePhones, bundle: Path, scenario: dict[str, Any], message: str
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
    measurement |= {"place": 1, "attempts": 1, "before": {"thermal_status": 0}, "after": {}}
    entry = {"model_sha256": model_sha256(load_bundle(bundle)), "measurements": [measurement]}
    head = {"format": "ondevice-latency", "format_version": 2, "device": {"model": "Pixel 8"}}
    return {**head, "bundles": {"b": entry}, "errors": {"shop": "another bundle of the app is damaged"}}


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("format_version", 1, "is of format ondevice-latency 1, not ondevice-latency 2"),
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
        ("bundles.b.measurements.0.attempts", None, "has no number .*attempts"),
        ("bundles.b.measurements.0.before", None, r"has no .*measurements\[0\].before"),
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


def test_a_phone_that_never_answers_and_one_that_answers_another_run(fake: FakePhones, bundle: Path) -> None:
    folder = fake(latency={"run": "yesterday's"})
    with pytest.raises(UserError, match=r"no figures after 0.2 s: it is before it had .*--device-timeout"):
        run_on_phone(bundle, Plan(seconds=0.2, poll_seconds=0.01))
    assert left_on_phone(folder) == []


def test_a_phone_whose_screen_went_off_is_woken_and_goes_on(fake: FakePhones, bundle: Path) -> None:
    folder, said = fake(stops=True), []
    phone = connect("adb", say=said.append)
    measured = benchmark_bundle(phone, bundle, PLAN, said.append)["measured"]
    assert measured["errors"] == {}
    (told,) = [line for line in said if "woken" in line]
    assert "stopped at 2 of 3, bench0-64KB with 1 thread, since the screen went off" in told
    starts = [call[-1] for call in calls(folder) if "am start" in call[-1]]
    assert starts[1] == "am start -W -n org.ondevice.demo/.BenchmarkActivity"
    assert left_on_phone(folder) == []


def test_the_phone_is_asked_less_and_less_often(
    fake: FakePhones, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(never=True)
    phone = connect("adb", say=lambda text: None)
    clock, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    time = SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep)
    monkeypatch.setattr("ondevice.bench.phone.phone.time", time)
    with pytest.raises(UserError, match="no figures after 100 s"):
        benchmark_bundle(phone, bundle, Plan(seconds=100), lambda text: None)
    assert slept == [5.0, 7.5, 11.25, 16.875, 25.3125, 30.0, pytest.approx(4.0625)]


def test_a_warm_phone_is_told(fake: FakePhones, bundle: Path) -> None:
    fake(warm=3)
    lines = text_table(run_on_phone(bundle)["measured"]).splitlines()
    assert "64KB, 1 threads: the phone was too warm (thermal status 3); let it cool and run again" in lines


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"calls": 0}, "--calls: from 1 to 1000000, got 0"),
        ({"warmups": -1}, "--warmups: from 0 to 1000000, got -1"),
        ({"threads": (65,)}, "--threads: from 1 to 64 on a phone, got 65"),
    ],
)
def test_a_plan_that_cannot_be(plan: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Plan(**plan)
