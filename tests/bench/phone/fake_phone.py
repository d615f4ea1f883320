"""A stand-in for a phone with the demo app: what its shell answers to the commands that a benchmark sends.

A phone is a folder: ``app`` are the app's own files, ``tmp`` is /data/local/tmp, and ``installed`` (version and hash of
the APK) and ``running`` say how the app is. Files are moved by a real shell. A scenario says what goes wrong.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

PACKAGE = "org.ondevice.demo"
TEMPORARY = "/data/local/tmp"
Answer = tuple[int, str, str]  # exit status, standard output, standard error


class FakePhone:
    """One phone.

    Args:
        folder: its files.
        scenario: ``app`` false: it is not installed; ``phone_error``: the app's sentence for every bundle;
            ``latency``: entries of latency.json to replace, ``latency_text``: all of it; ``start``, ``run_as``,
            ``push`` and ``install``: how these are refused; ``crashes``, ``never``: what the app does when started;
            ``stops``: that it is out of sight until it is started again, ``dies``: and ends there;
            ``another_app``: what is installed is not the demo; ``version``: of the app that is there,
            ``new_version``: of what is installed; ``warm``: thermal status while measuring.
    """

    def __init__(self, folder: Path, scenario: dict[str, Any]) -> None:
        self.app, self.temporary, self.scenario = folder / "app", folder / "tmp", scenario

    @classmethod
    def create(cls, folder: Path, **scenario: Any) -> FakePhone:
        """A phone in a new folder."""
        phone = cls(folder, scenario)
        (phone.app / "files").mkdir(parents=True)
        phone.temporary.mkdir()
        if scenario.get("app", True):
            (phone.app / "installed").write_text(f"{scenario.get('version', 2)} another-apk")
        return phone

    def path(self, remote: str) -> Path:
        """Where a file of the phone is."""
        return Path(remote.replace(TEMPORARY, str(self.temporary)))

    def left(self) -> list[str]:
        """Files that a measurement left behind."""
        files = self.app / "files"
        paths = [*self.temporary.rglob("*"), *(files / "bundles").glob("*"), *files.glob("*.json")]
        return [str(path) for path in paths]

    def install(self, apk: bytes) -> str:
        """Install the app; why not, or nothing."""
        if not self.scenario.get("install") and not self.scenario.get("another_app"):
            version, digest = self.scenario.get("new_version", 2), hashlib.sha256(apk).hexdigest()
            (self.app / "installed").write_text(f"{version} {digest}")
        return str(self.scenario.get("install", ""))

    def shell(self, line: str) -> Answer:
        """One command."""
        words = shlex.split(line)
        if words[0] == "run-as":
            assert words[1:4] == [PACKAGE, "sh", "-c"], words
            return self._run_as(words[4])
        if words[0] == "pm":
            installed = (self.app / "installed").exists()
            return (0, f"package:/data/app/{PACKAGE}/base.apk\n", "") if installed else (1, "", "")
        if words[0] == "dumpsys":
            version = (self.app / "installed").read_text().split()[0]
            return 0, f"Packages:\n    versionCode={version} minSdk=26 targetSdk=36\n", ""
        if words[0] == "sha256sum":
            return 0, f"{(self.app / 'installed').read_text().split()[1]}  {words[1]}\n", ""
        if words == ["input", "keyevent", "KEYCODE_WAKEUP"]:
            return 0, "", ""
        if words[:2] == ["am", "start"]:
            return 0, self._start(words), ""
        if words[:2] == ["am", "force-stop"]:
            (self.app / "running").unlink(missing_ok=True)
            return 0, "", ""
        if words[0] in ("mkdir", "chmod", "rm"):
            return self._run([str(self.path(word)) for word in words])
        return 127, "", f"/system/bin/sh: {words[0]}: inaccessible or not found\n"

    def _run_as(self, script: str) -> Answer:
        if self.scenario.get("run_as"):
            return 1, "", f"{self.scenario['run_as']}\n"
        if not (self.app / "installed").exists():
            return 1, "", f"run-as: unknown package: {PACKAGE}\n"
        script = script.replace(TEMPORARY, str(self.temporary)).replace(f"pidof {PACKAGE}", "ls running")
        return self._run(["sh", "-c", script])

    def _run(self, words: list[str]) -> Answer:
        import subprocess  # a call that does not need it starts sooner without it

        done = subprocess.run(words, cwd=self.app, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def _start(self, words: list[str]) -> str:
        scenario = self.scenario
        if scenario.get("start"):
            return f"{scenario['start']}\n"
        extras = {words[i + 1]: words[i + 2] for i, word in enumerate(words) if word in ("--es", "--ei")}
        file, asked = self.app / "files" / "latency.json", self.app / "asked.json"
        if not extras:  # brought to the front again
            file.write_text(json.dumps(self._latency(json.loads(asked.read_text()))))
            return "Status: ok\n"
        (self.app / "running").touch()
        if scenario.get("stops"):
            asked.write_text(json.dumps(extras))
            step = {"state": "stopped", "bundle": "bench0-64KB", "num_threads": 1, "place": 2, "total": 3}
            progress = {"run": extras["run"], **step, "why": "the screen went off"}
            (file.parent / "benchmark.json").write_text(json.dumps(progress))
            if scenario.get("dies"):
                (self.app / "running").unlink()
            return "Status: ok\n"
        if "latency_text" in scenario:
            file.write_text(scenario["latency_text"])
        elif scenario.get("crashes"):
            (self.app / "running").unlink()
        elif not scenario.get("never"):
            file.write_text(json.dumps(self._latency(extras)))
        return "Status: ok\n"

    def _latency(self, extras: dict[str, str]) -> dict[str, Any]:
        """What the app writes when it has measured the bundles that are really there."""
        bundles, errors = {}, {}
        for name in extras["bundles"].split(","):
            if self.scenario.get("phone_error"):
                errors[name] = self.scenario["phone_error"]
                continue
            manifest = json.loads((self.app / "files/bundles" / name / "manifest.json").read_text())
            calls = {"p50": 100.5, "p95": 210.0, "calls": int(extras["calls"])}
            moment = {
                **{
                    "thermal_status": self.scenario.get("warm", 0),
                    "battery_percent": 80,
                    "battery_celsius": 31.5,
                },
                **{"is_charging": True, "is_saving_power": False},
            }
            bundles[name] = {
                "bytes": {"bundle": 1},
                "model_sha256": manifest["files"]["model.pte"]["sha256"],
                "measurements": [
                    {
                        "num_threads": int(threads),
                        "load_ms": 3.25,
                        "pss_before_bytes": 50_000_000,
                        "pss_after_bytes": 51_500_000,
                        "peak_rss_bytes": None,
                        "rank_us": dict.fromkeys(extras["candidates"].split(","), calls),
                        **{"place": 1, "attempts": 1, "before": moment, "after": moment},
                    }
                    for threads in extras["threads"].split(",")
                ],
            }
        device = {
            **{"manufacturer": "Google", "model": "Pixel 8", "soc": "Tensor G3"},
            **{"android": "15", "sdk": 35, "abi": "arm64-v8a", "cores": 9},
        }
        return {
            "run": extras["run"],
            **{
                "format": "ondevice-latency",
                "format_version": 2,
                "device": device,
                "warmups": int(extras["warmups"]),
            },
            **{"bundles": bundles, "errors": errors},
            **self.scenario.get("latency", {}),
        }
