"""Bundles measured on a phone, by the demo app's headless benchmark."""

from __future__ import annotations

import datetime
import json
import math
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ondevice.bench.phone.adb import HOW_TO_INSTALL, PACKAGE, TRANSFER_SECONDS, Phone
from ondevice.bundle.manifest import PROGRAM
from ondevice.errors import UserError
from ondevice.program.bundle import Bundle

ACTIVITY = f"{PACKAGE}/.BenchmarkActivity"
FORMAT, FORMAT_VERSION = "ondevice-latency", 2
PUSHED = "/data/local/tmp"
OUTPUT, PROGRESS = "files/latency.json", "files/benchmark.json"
MAX_THREADS = 64
SLOWED_DOWN = 2
"""PowerManager's thermal status from which a phone slows its processor down."""
FIGURES_OF_DEVICE = ("manufacturer", "soc", "android", "sdk", "abi", "cores")
MEMORY_KEYS = ("pss_before_bytes", "pss_after_bytes", "peak_rss_bytes")
CONDITIONS = ("thermal_status", "battery_percent", "battery_celsius", "is_charging", "is_saving_power")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What the phone is asked to measure, and how long it may take.

    Args:
        warmups: calls before those that count.
        calls: calls that count.
        seconds: what the phone may take.
        poll_seconds: until it is first asked how far it is; each time half as long again, since asking disturbs.
    """

    candidates: tuple[int, ...] = (1, 100, 1000)
    threads: tuple[int, ...] = (1, 2, 4)
    seconds: float = 600.0
    warmups: int = 20
    calls: int = 200
    poll_seconds: float = 5.0
    max_poll_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, values, most in (
            ("candidates", self.candidates, 10**6),
            ("threads", self.threads, MAX_THREADS),
        ):
            if not values or min(values) < 1 or max(values) > most:
                got = ", ".join(map(str, values)) or "nothing"
                raise UserError(f"--{name}: from 1 to {most} on a phone, got {got}")
        if not 0 <= self.warmups <= 10**6:
            raise UserError(f"--warmups: from 0 to {10**6}, got {self.warmups}")
        if not 1 <= self.calls <= 10**6:
            raise UserError(f"--calls: from 1 to {10**6}, got {self.calls}")
        if not self.seconds > 0:
            raise UserError(f"--device-timeout: more than 0 seconds, got {self.seconds:g}")


def measure(phone: Phone, bundles: Mapping[str, Bundle], plan: Plan, say: Say = print) -> dict[str, Any]:
    """Push bundles to a phone, have them measured there, and bring back the figures.

    The bundles get names of their own in the app, so that those it shows stay what they are. What was pushed
    is removed again, however this ends.

    Args:
        phone: with the demo app on it.
        bundles: by the names that the figures get.
        plan: what to measure.
        say: told each step as it ends.

    Returns: the phone's ``model`` and figures, ``bundles`` by name, ``errors`` by name: sentences for those
        that it could not measure.

    Raises: UserError: when there are no figures, one line that says why.
    """
    run_id = uuid.uuid4().hex[:12]
    folder = f"{PUSHED}/ondevice-{run_id}"
    names = {
        f"bench{place}-{re.sub('[^A-Za-z0-9._-]', '_', name)}"[:64]: name
        for place, name in enumerate(bundles)
    }
    try:
        for pushed, name in names.items():
            _push(phone, bundles[name], pushed, folder)
        say(f"phone {phone.serial}: pushed {', '.join(bundles)}")
        _start(phone, run_id, list(names), plan)
        latency = _wait(phone, run_id, plan, say)
    finally:
        _clean_up(phone, folder, list(names), say)
    return read_figures(latency, names, bundles, plan)


def _push(phone: Phone, bundle: Bundle, name: str, folder: str) -> None:
    """Lay a bundle's files, and nothing else of its directory, into the app's ``files/bundles/NAME``."""
    doing = f"pushing {bundle.path.name or name}"
    source, target = f"{folder}/{name}", f"files/bundles/{name}"
    phone.shell("mkdir", "-p", source, doing=doing)
    phone.shell("chmod", "755", folder, source, doing=doing)
    files = [str(bundle.path / file) for file in bundle.contents]
    phone.call("push", *files, f"{source}/", doing=doing, seconds=TRANSFER_SECONDS)
    script = f"mkdir -p files/bundles && rm -rf {target} && cp -r {source} {target}"
    phone.as_app(script, doing=f"{doing} into the app")


def _start(phone: Phone, run_id: str, names: list[str], plan: Plan) -> None:
    """Start the benchmark in a fresh process."""
    doing = "starting the benchmark"
    phone.as_app(f"rm -f {OUTPUT} {PROGRESS}", doing=doing)
    phone.wake()
    extras = {
        "run": run_id,
        "bundles": ",".join(names),
        "candidates": ",".join(map(str, plan.candidates)),
        "threads": ",".join(map(str, plan.threads)),
    }
    words = [word for key, value in extras.items() for word in ("--es", key, value)]
    words += ["--ei", "warmups", str(plan.warmups), "--ei", "calls", str(plan.calls)]
    result = phone.shell("am", "start", "-S", "-W", "-n", ACTIVITY, *words, doing=doing, check=False)
    said = f"{result.output}\n{result.errors}".splitlines()
    refused = [line.strip() for line in said if line.startswith(("Error", "java.lang."))]
    if refused or result.code:
        raise UserError(
            f"phone {phone.serial}: the app did not start its benchmark: {(refused or [result.reason])[-1]}; "
            f"it is there in debug builds of android_demo only: {HOW_TO_INSTALL}"
        )


def _wait(phone: Phone, run_id: str, plan: Plan, say: Say) -> dict[str, Any]:
    """The contents of latency.json once it answers this run."""
    doing = "it was measuring"
    end = time.monotonic() + plan.seconds
    seconds, told = plan.poll_seconds, None
    while True:
        # One call, and none but this: whatever runs on the phone takes time from what is measured.
        output = phone.as_app(
            f"cat {OUTPUT} 2>/dev/null || cat {PROGRESS} 2>/dev/null; pidof {PACKAGE} >/dev/null",
            doing=doing,
            check=False,
        )
        answer = _parse(output.output) if output.output.strip() else {}
        if "state" not in answer and answer.get("run") == run_id:
            return answer
        progress = answer if answer.get("run") == run_id else {}
        if output.code:
            raise UserError(f"phone {phone.serial}: the app ended {_where(progress)}; {_why_ended(progress)}")
        if time.monotonic() >= end:
            raise UserError(
                f"phone {phone.serial}: no figures after {plan.seconds:g} s: it is {_where(progress)}; leave it alone "
                "with its screen on, or give a longer --device-timeout, or fewer --candidates, --threads and --calls"
            )
        if progress.get("state") == "stopped":
            if told != progress.get("place"):
                say(f"phone {phone.serial}: {_where(progress)}; it is woken and goes on")
                told = progress.get("place")
            phone.wake()
            phone.shell("am", "start", "-W", "-n", ACTIVITY, doing=doing, check=False)
        time.sleep(min(seconds, max(0.0, end - time.monotonic())))
        seconds = min(1.5 * seconds, plan.max_poll_seconds)


def _where(progress: Mapping[str, Any]) -> str:
    """How far the phone was when it last said so."""
    if not progress:
        return "before it had measured anything"
    threads = progress.get("num_threads")
    step = f"{progress.get('bundle')} with {threads} thread{'' if threads == 1 else 's'}"
    at = f"at {progress.get('place')} of {progress.get('total')}, {step}"
    return (
        f"stopped {at}, since {progress.get('why')}"
        if progress.get("state") == "stopped"
        else f"measuring {at}"
    )


def _why_ended(progress: Mapping[str, Any]) -> str:
    if progress.get("state") == "stopped":
        return "a phone may end an app that is out of sight: leave it alone until it is done, and run again"
    return "adb logcat -d says why (out of memory, or a program that its runtime cannot load), then run again"


def _clean_up(phone: Phone, folder: str, names: list[str], say: Say) -> None:
    """Remove what was pushed; a phone that is gone by now is no reason to fail."""
    kept = " ".join([*(f"files/bundles/{name}" for name in names), OUTPUT, PROGRESS])
    try:
        phone.shell("am", "force-stop", PACKAGE, doing="cleaning up")
        phone.as_app(f"rm -rf {kept}", doing="cleaning up")
        phone.shell("rm", "-rf", folder, doing="cleaning up")
    except UserError:
        say(f"phone {phone.serial}: not cleaned up; {folder} and the app's {kept} may be left there")


def _parse(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _malformed(f"is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise _malformed("is not a JSON object")
    return value


def _malformed(what: str) -> UserError:
    return UserError(
        f"the phone's latency.json {what}; the app and this ondevice are of different versions: {HOW_TO_INSTALL}"
    )


def read_figures(
    latency: Mapping[str, Any], names: Mapping[str, str], bundles: Mapping[str, Bundle], plan: Plan
) -> dict[str, Any]:
    """What a report says of a phone, from a latency.json that is checked key by key.

    Raises: UserError: when a key is missing or wrong, or not one bundle was measured.
    """
    errors = latency.get("errors")
    if not isinstance(errors, dict):
        raise _malformed("has no errors")
    if "" in errors:
        raise UserError(f"the phone measured nothing: {errors['']}; give other --candidates or --threads")
    if latency.get("format") != FORMAT or latency.get("format_version") != FORMAT_VERSION:
        got = f"{latency.get('format')} {latency.get('format_version')}"
        raise _malformed(f"is of format {got}, not {FORMAT} {FORMAT_VERSION}")
    device, measured = latency.get("device"), latency.get("bundles")
    if not isinstance(device, dict) or not isinstance(device.get("model"), str) or not device["model"]:
        raise _malformed("has no device.model")
    if not isinstance(measured, dict):
        raise _malformed("has no bundles")
    failed = {name: str(errors[pushed]) for pushed, name in names.items() if pushed in errors}
    pulled = {
        name: _bundle_figures(measured.get(pushed), pushed, bundles[name], plan)
        for pushed, name in names.items()
        if pushed not in errors
    }
    if not pulled:
        raise UserError(f"the phone measured nothing: {failure_text(failed)}")
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "model": device["model"],
        **{key: device.get(key) for key in FIGURES_OF_DEVICE},
        "measured": now.strftime("%Y-%m-%d %H:%M UTC"),
        "bundles": pulled,
        "errors": failed,
    }


def failure_text(errors: Mapping[str, str]) -> str:
    """The phone's own sentences on the bundles that it could not measure, and the way out."""
    said = "; ".join(f"{name}: {sentence}" for name, sentence in errors.items())
    return f"{said}; export those bundles again, or update the app: {HOW_TO_INSTALL}"


def _bundle_figures(entry: Any, pushed: str, bundle: Bundle, plan: Plan) -> dict[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("measurements"), list):
        raise _malformed(f"has no bundles.{pushed}.measurements")
    sha256 = bundle.manifest["files"][PROGRAM]["sha256"]
    if entry.get("model_sha256") != sha256:
        raise _malformed(f"has another model_sha256 for {pushed} than was pushed")
    by_threads = [
        _measurement(each, f"{pushed}.measurements[{place}]", plan)
        for place, each in enumerate(entry["measurements"])
    ]
    if [each["num_threads"] for each in by_threads] != list(plan.threads):
        raise _malformed(f"has not the threads that were asked for ({pushed})")
    return {"model_sha256": sha256, "bytes": bundle.total_bytes, "measurements": by_threads}


def _measurement(entry: Any, where: str, plan: Plan) -> dict[str, Any]:
    """One bundle with one number of threads."""
    if not isinstance(entry, dict) or not isinstance(entry.get("rank_us"), dict):
        raise _malformed(f"has no {where}.rank_us")
    rank_us = {}
    for count in map(str, plan.candidates):
        call = entry["rank_us"].get(count)
        if not isinstance(call, dict):
            raise _malformed(f"has no {where}.rank_us.{count}")
        rank_us[count] = {
            key: _number(call, key, f"{where}.rank_us.{count}") for key in ("p50", "p95", "calls")
        }
    for key in MEMORY_KEYS:  # null where the phone does not tell
        if entry.get(key) is not None:
            _number(entry, key, where)
    for moment in ("before", "after"):
        if not isinstance(entry.get(moment), dict):
            raise _malformed(f"has no {where}.{moment}")
    return {
        "num_threads": _number(entry, "num_threads", where),
        "load_ms": _number(entry, "load_ms", where),
        **{key: entry.get(key) for key in MEMORY_KEYS},
        "rank_us": rank_us,
        "place": _number(entry, "place", where),
        "attempts": _number(entry, "attempts", where),
        **{moment: {key: entry[moment].get(key) for key in CONDITIONS} for moment in ("before", "after")},
    }


def disturbed(measured: Mapping[str, Any]) -> list[str]:
    """One line for each measurement of a phone that was too warm, or saved power."""
    lines = []
    for name, bundle in measured["bundles"].items():
        for each in bundle["measurements"]:
            moments = (each["before"], each["after"])
            status = max(moment["thermal_status"] or 0 for moment in moments)
            step = f"{name}, {each['num_threads']} threads"
            if status >= SLOWED_DOWN:
                lines.append(
                    f"{step}: the phone was too warm (thermal status {status}); let it cool and run again"
                )
            if any(moment["is_saving_power"] for moment in moments):
                lines.append(f"{step}: the phone saved power; switch that off and run again")
    return lines


def _number(entry: Mapping[str, Any], key: str, where: str) -> int | float:
    value = entry.get(key)
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or value < 0
    ):
        raise _malformed(f"has no number {where}.{key}")
    return value
