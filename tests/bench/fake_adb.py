"""A stand-in for the adb client and the phone behind it: the tests copy it to a folder on PATH, as ``adb``.

scenario.json beside it says what goes wrong; calls.jsonl gets every call. The phone's files are in the folder
``phone``: pushes are copied there, and what runs as the app is run by a real shell.
"""

import json
import os
import shlex
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
APP, TEMPORARY = HERE / "phone" / "app", HERE / "phone" / "tmp"
PACKAGE = "org.ondevice.demo"


def fail(text, code=1):
    print(text, file=sys.stderr)
    sys.exit(code)


def devices(scenario):
    """Serial and state of each phone, less those that were unplugged."""
    gone = scenario.get("gone", {}) if (HERE / "unplugged").exists() else {}
    lines = [line.split("\t") for line in scenario.get("devices", ["PHONE1\tdevice"])]
    states = {serial: gone.get(serial, state) for serial, state in lines}
    return {serial: state for serial, state in states.items() if state}


def latency(scenario, extras):
    """What the app writes when it has measured the bundles that are really there."""
    bundles, errors = {}, {}
    for name in extras["bundles"].split(","):
        if scenario.get("phone_error"):
            errors[name] = scenario["phone_error"]
            continue
        manifest = json.loads((APP / "files/bundles" / name / "manifest.json").read_text())
        calls = {"p50": 100.5, "p95": 210.0, "calls": 200}
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
        **{"format": "ondevice-latency", "format_version": 1, "device": device, "warmups": 20},
        **{"bundles": bundles, "errors": errors},
        **scenario.get("latency", {}),
    }


def start(scenario, words):
    if scenario.get("start"):
        print(scenario["start"])
        return
    extras = {words[i + 1]: words[i + 2] for i, word in enumerate(words) if word == "--es"}
    (APP / "running").touch()
    file = APP / "files" / "latency.json"
    if "latency_text" in scenario:
        file.write_text(scenario["latency_text"])
    elif scenario.get("crashes"):
        (APP / "running").unlink()
    elif not scenario.get("never"):
        file.write_text(json.dumps(latency(scenario, extras)))
    print("Status: ok")


def run_as(scenario, script):
    if scenario.get("run_as"):
        fail(scenario["run_as"])
    if not (APP / "installed").exists():
        fail(f"run-as: unknown package: {PACKAGE}")
    import subprocess  # a call that does not need it starts sooner without it

    script = script.replace("/data/local/tmp", str(TEMPORARY))
    done = subprocess.run(["sh", "-c", script], cwd=APP, check=False)
    sys.exit(done.returncode)


def shell(scenario, words):
    """One command on the phone; what the phone's shell takes is a line."""
    if words[0] == "run-as":
        assert words[1:4] == [PACKAGE, "sh", "-c"], words
        run_as(scenario, words[4])
    elif words[0] == "pm":
        if not (APP / "installed").exists():
            sys.exit(1)
        print(f"package:/data/app/{PACKAGE}/base.apk")
    elif words[0] == "pidof":
        sys.exit(0 if (APP / "running").exists() else 1)
    elif words[:2] == ["am", "start"]:
        start(scenario, words)
    elif words[:2] == ["am", "force-stop"]:
        (APP / "running").unlink(missing_ok=True)
    elif words[0] in ("mkdir", "chmod", "rm"):
        import subprocess

        mapped = [word.replace("/data/local/tmp", str(TEMPORARY)) for word in words]
        sys.exit(subprocess.run(mapped, check=False).returncode)
    else:
        fail(f"/system/bin/sh: {words[0]}: inaccessible or not found", 127)


def main(words):
    with (HERE / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(words) + "\n")
    scenario = json.loads((HERE / "scenario.json").read_text())
    line = " ".join(words)
    if scenario.get("unplug_at") and scenario["unplug_at"] in line:
        (HERE / "unplugged").touch()
    if scenario.get("hang_at") and scenario["hang_at"] in line:
        import time

        time.sleep(60)
    if words[0] == "devices":
        if scenario.get("server"):
            fail(scenario["server"])
        print("* daemon started successfully\nList of devices attached")
        print("".join(f"{serial}\t{state}\n" for serial, state in devices(scenario).items()))
        return
    assert words[0] == "-s", words
    serial, command, rest = words[1], words[2], words[3:]
    if devices(scenario).get(serial) != "device":
        fail(f"error: device '{serial}' not found")
    if command == "shell":
        assert len(rest) == 1, "the real client joins words with spaces"
        shell(scenario, shlex.split(rest[0]))
    elif command == "install":
        if scenario.get("install"):
            fail(f"Performing Streamed Install\nadb: failed to install {rest[0]}: {scenario['install']}")
        if not scenario.get("another_app"):
            (APP / "installed").touch()
        print("Performing Streamed Install\nSuccess")
    elif command == "push":
        if scenario.get("push"):
            fail(scenario["push"])
        import shutil

        target = Path(rest[-1].replace("/data/local/tmp", str(TEMPORARY)))
        assert target.is_dir(), target
        for source in rest[:-1]:
            shutil.copy(source, target / os.path.basename(source))
    else:
        fail(f"adb: unknown command {command}")


main(sys.argv[1:])
