"""A stand-in for the adb client: the tests write it to a folder on PATH, as ``adb``.

scenario.json beside it says what goes wrong, here and on the phone; calls.jsonl gets every call. The phone is in
the folder ``phone``.
"""

import json
import os
import sys
from pathlib import Path

from fake_phone import FakePhone

HERE = Path(__file__).resolve().parent


def fail(text, code=1):
    print(text, file=sys.stderr)
    sys.exit(code)


def devices(scenario):
    """Serial and state of each phone, less those that were unplugged."""
    gone = scenario.get("gone", {}) if (HERE / "unplugged").exists() else {}
    lines = [line.split("\t") for line in scenario.get("devices", ["PHONE1\tdevice"])]
    states = {serial: gone.get(serial, state) for serial, state in lines}
    return {serial: state for serial, state in states.items() if state}


def push(phone, sources, target):
    if phone.scenario.get("push"):
        fail(phone.scenario["push"])
    import shutil  # a call that does not need it starts sooner without it

    folder = phone.path(target)
    assert folder.is_dir(), folder
    for source in sources:
        shutil.copy(source, folder / os.path.basename(source))


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
    phone = FakePhone(HERE / "phone", scenario)
    if command == "shell":
        assert len(rest) == 1, "the real client joins words with spaces"
        code, output, errors = phone.shell(rest[0])
        sys.stdout.write(output)
        sys.stderr.write(errors)
        sys.exit(code)
    elif command == "install":
        if problem := phone.install(Path(rest[-1]).read_bytes()):
            fail(f"Performing Streamed Install\nadb: failed to install {rest[-1]}: {problem}")
        print("Performing Streamed Install\nSuccess")
    elif command == "push":
        push(phone, rest[:-1], rest[-1])
    else:
        fail(f"adb: unknown command {command}")


main(sys.argv[1:])
