"""The benchmark on a phone through the real adb client: without a phone, and with stand-ins for the daemon on it.

    ADB=/path/to/adb pytest tests/bench/phone/test_adbd.py

`android_demo/tools/verify.py adb` fetches a client and runs this.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ondevice.bench.phone.adb import Adb, Result, connect
from ondevice.bench.phone.phone import Plan
from ondevice.errors import UserError

from .fake_adbd import FakeAdbd
from .fake_phone import FakePhone
from .phones import PLAN, run_on_phone

ROOT = Path(__file__).resolve().parents[3]
Plug = Callable[..., FakeAdbd]

pytestmark = pytest.mark.skipif(
    shutil.which(os.environ.get("ADB") or "adb") is None,
    reason="the real adb client is not installed (apt install adb, or set ADB to its path)",
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adb]:
    """The client, with a server and keys of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("ANDROID_SERIAL", raising=False)
        client = Adb.find()
        if client.devices():
            pytest.skip("a phone is connected")
        yield client
        client.call("kill-server")


@pytest.fixture
def plug(adb: Adb, tmp_path: Path) -> Iterator[Plug]:
    """A function that plugs in a phone with a scenario."""
    plugged: list[FakeAdbd] = []

    def make(*, app: bool = True, state: str = "device", **scenario: Any) -> FakeAdbd:
        phone = FakePhone.create(tmp_path / f"phone{len(plugged)}", app=app, **scenario)
        plugged.append(FakeAdbd(phone, **scenario))
        serial = plugged[-1].serial
        adb.call("connect", serial)
        end = time.monotonic() + 20
        while adb.devices().get(serial) != state:
            assert time.monotonic() < end, f"{serial} is {adb.devices().get(serial)}, not {state}"
            time.sleep(0.05)
        return plugged[-1]

    yield make
    for each in plugged:
        adb.call("disconnect", each.serial)
        each.close()


def test_no_phone(adb: Adb) -> None:
    with pytest.raises(UserError, match="no phone is connected; plug one in"):
        connect("adb")
    with pytest.raises(UserError, match="no phone is connected"):
        connect("adb:SERIAL")
    assert adb.call("-s", "SERIAL", "shell", "true").code == 1


def test_a_bundle_is_measured(plug: Plug, bundle: Path) -> None:
    adbd = plug()
    script = [sys.executable, str(ROOT / "export" / "benchmark.py"), str(bundle), "--device", "adb"]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Pixel 8\n64KB  1 threads" in done.stdout
    report = json.loads((bundle / "report.json").read_text())
    (entry,) = report["devices"]["Pixel 8"]["bundles"].values()
    assert entry["measurements"][0]["rank_us"]["1000"]["p50"] == 100.5
    assert adbd.phone.left() == []
    assert any(service.startswith("sync") for service in adbd.services)


def test_what_is_pushed_arrives_whole(plug: Plug, tmp_path: Path) -> None:
    adbd = plug()
    phone = connect("adb")
    content = os.urandom(1_000_000)
    (tmp_path / "a b.bin").write_bytes(content)
    phone.call("push", str(tmp_path / "a b.bin"), "/data/local/tmp/", doing="pushing")
    assert (adbd.phone.temporary / "a b.bin").read_bytes() == content
    assert phone.shell("rm", "/data/local/tmp/a b.bin", doing="removing").code == 0
    assert phone.shell("cat", "nothing", doing="reading", check=False).code == 127


def test_two_phones(plug: Plug, bundle: Path) -> None:
    first, second = plug(), plug()
    with pytest.raises(UserError, match=r"2 phones are connected: .*; name one with --device adb:") as e:
        connect("adb")
    assert first.serial in str(e.value)
    assert connect(f"adb:{second.serial}").serial == second.serial
    assert first.services == []


def test_a_phone_that_has_not_allowed_this_computer(plug: Plug) -> None:
    adbd = plug(unauthorized=True, state="unauthorized")
    with pytest.raises(UserError, match=f"phone {adbd.serial}: unauthorized: .*'Allow USB debugging"):
        connect("adb")


def test_the_app_is_missing(plug: Plug, tmp_path: Path) -> None:
    plug(app=False)
    with pytest.raises(UserError, match=r"org.ondevice.demo is not installed; build it .*--apk demo.apk"):
        connect("adb")
    apk = tmp_path / "demo.apk"
    apk.write_bytes(os.urandom(300_000))
    said: list[str] = []
    connect("adb", apk, said.append)
    assert "installed" in said[-1]


def test_an_app_that_is_refused(plug: Plug, tmp_path: Path) -> None:
    plug(app=False, install="Failure [INSTALL_FAILED_INSUFFICIENT_STORAGE]")
    apk = tmp_path / "demo.apk"
    apk.write_bytes(b"apk")
    with pytest.raises(UserError, match=r"was not installed: .*INSUFFICIENT_STORAGE.*free some room"):
        connect("adb", apk)


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ({"unplug_at": "sync:"}, "went away while pushing 64KB "),
        ({"unplug_at": "am start"}, "went away while starting the benchmark "),
        ({"unplug_at": "cat files/latency.json", "never": True}, "went away while it was measuring "),
        ({"push": "No space left on device"}, "pushing 64KB failed: .*No space left on device"),
        ({"run_as": "run-as: package not debuggable: org.ondevice.demo"}, "not debuggable.*debug build"),
        ({"crashes": True}, "the app ended before it had measured anything; adb logcat"),
    ],
)
def test_a_measurement_that_fails(plug: Plug, bundle: Path, scenario: dict[str, Any], message: str) -> None:
    plug(**scenario)
    with pytest.raises(UserError, match=message) as error:
        run_on_phone(bundle, PLAN)
    assert "\n" not in str(error.value)
    assert not (bundle / "report.json").exists()


def test_a_phone_that_never_has_figures(plug: Plug, bundle: Path) -> None:
    adbd = plug(never=True)
    with pytest.raises(UserError, match=r"no figures after 0.5 s: it is before"):
        run_on_phone(bundle, Plan(seconds=0.5, poll_seconds=0.05))
    assert adbd.phone.left() == []


def test_a_call_that_hangs(plug: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    plug(hang_at="pm path")
    call = Adb.call

    def impatient(self: Adb, *words: str, seconds: float = 30.0) -> Result:
        return call(self, *words, seconds=1 if "pm path" in " ".join(words) else seconds)

    monkeypatch.setattr(Adb, "call", impatient)
    with pytest.raises(UserError, match="no answer within 30 s while looking for the app; unlock it"):
        connect("adb")
