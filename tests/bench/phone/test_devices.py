"""A phone's figures in the reports of bundles and runs, and the script that gets them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ondevice.bench.phone.adb import connect
from ondevice.bench.phone.devices import benchmark_run, require_all
from ondevice.bench.report.report import current, merge, model_sha256
from ondevice.errors import UserError
from ondevice.files import atomic_json
from ondevice.program.bundle import load_bundle

from .. import sample
from .phones import PLAN, write_bundle

ROOT = Path(__file__).resolve().parents[3]
FakePhones = Callable[..., Path]


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
    fake: FakePhones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ondevice.bench.settings import Settings

    run = SimpleNamespace(path=tmp_path / "run", metrics={"history": sample.report()["history"]})
    monkeypatch.setattr("ondevice.run.directory.Run", lambda path: run)
    monkeypatch.setattr("ondevice.bench.shipped.field_sizes", lambda run, label: sample.report()["fields"])
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


def test_a_bundle_is_measured_from_a_computer_without_torch_and_unix(fake: FakePhones, bundle: Path) -> None:
    fake()
    script, missing = (
        ROOT / "export" / "benchmark.py",
        ("torch", "torchao", "executorch", "fcntl", "resource"),
    )
    code = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({missing}))\n"
        f"sys.argv = [{str(script)!r}, {str(bundle)!r}, '--device', 'adb']\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Pixel 8\n64KB  1 threads" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "scenario", "message"),
    [
        (["BUNDLE", "--device", "adb"], {"devices": []}, "no phone is connected"),
        (["BUNDLE", "--device", "adb", "--threads", "0"], {}, "--threads: from 1 to 64"),
        (["BUNDLE", "--device", "adb", "--budget", "64KB"], {}, "give no --bundle and no --budget"),
        (["--device", "adb"], {}, "give a run directory or a bundle"),
        (["--device", "adb", "--bundle", "BUNDLE", "--device-timeout", "0"], {}, "more than 0 seconds"),
        (["BUNDLE", "--apk", "demo.apk"], {}, "--apk: only used with --device adb"),
        (["BUNDLE", "--calls", "9"], {}, "--calls: only used with --device adb"),
        (["BUNDLE", "--device", "adb", "--calls", "0"], {}, "--calls: from 1 to 1000000"),
        (["--device", "adb", "--bundle", "BUNDLE", "--calls", "9", "--warmups", "0"], {}, None),
    ],
)
def test_the_script(
    fake: FakePhones, bundle: Path, arguments: list[str], scenario: dict[str, Any], message: str | None
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
