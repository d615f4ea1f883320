"""Phones by way of the ``adb`` program: which is meant, whether it answers, and the demo app on it."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ondevice.errors import UserError

PACKAGE = "org.ondevice.demo"
APP_VERSION = 2
"""The versionCode of the app whose benchmark this speaks to; android_demo/app/build.gradle.kts has the same."""
SECONDS = 30.0
"""What any call may take that moves no files."""
TRANSFER_SECONDS = 300.0
HOW_TO_INSTALL = (
    "build it as android_demo/README.md says and install it with adb install, or give it with --apk demo.apk"
)
STATES = {
    "unauthorized": "the phone has not allowed this computer; unlock it, answer 'Allow USB debugging?' and run again",
    "authorizing": "the phone is still asking; unlock it, answer 'Allow USB debugging?' and run again",
    "offline": "the phone does not answer; plug it in again, or run adb reconnect offline, and run again",
    "connecting": "the phone is still being connected; run again in a moment",
    "no permissions": "this user may not use the USB device; see developer.android.com/studio/run/device (udev rules)",
}
"""State of a phone that cannot be used: why, and the way out."""


@dataclass(frozen=True)
class Result:
    """How a call of adb ended."""

    code: int
    output: str
    errors: str

    @property
    def reason(self) -> str:
        """The line that says most about a failure: the last one that names an error, else the last one."""
        lines = [line.strip() for line in f"{self.output}\n{self.errors}".splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("adb: error", "error:"))]
        return (errors or lines or [f"exit status {self.code}"])[-1]


class Adb:
    """The ``adb`` program.

    Args:
        program: its path.
    """

    def __init__(self, program: str) -> None:
        self.program = program

    @classmethod
    def find(cls) -> Adb:
        """The program that the environment variable ADB names, else the one on PATH.

        Raises: UserError: when there is none.
        """
        named = os.environ.get("ADB")
        program = shutil.which(named or "adb")
        if program is None:
            where = f"ADB={named}: no such program" if named else "adb is not installed, or not on PATH"
            raise UserError(
                f"{where}; install Android's platform-tools (apt install adb, brew install "
                "android-platform-tools), or set ADB to its path"
            )
        return cls(program)

    def call(self, *arguments: str, seconds: float = SECONDS) -> Result:
        """Run adb to its end.

        Raises:
            TimeoutError: when it has not ended after so many seconds.
            UserError: when it cannot be started.
        """
        try:
            done = subprocess.run(
                [self.program, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"adb {arguments[0]}: no answer within {seconds:g} s") from None
        except OSError as error:
            raise UserError(f"{self.program}: cannot be run ({error.strerror}); install adb again") from None
        return Result(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def devices(self) -> dict[str, str]:
        """Serial to state of every phone that adb knows.

        Raises: UserError: when adb's server does not answer.
        """
        way_out = "run adb kill-server and try again"
        try:
            result = self.call("devices")
        except TimeoutError as error:
            raise UserError(f"{error}; {way_out}") from None
        if result.code:
            raise UserError(f"adb devices failed: {result.reason}; {way_out}")
        _, _, listed = result.output.partition("List of devices attached")
        pairs = (line.split(None, 1) for line in listed.splitlines() if line.strip())
        return {pair[0]: pair[1].strip() if len(pair) > 1 else "unknown" for pair in pairs}


def parse_device(text: str) -> str | None:
    """The serial in ``adb:SERIAL``, None for ``adb``.

    Raises: UserError: for anything else.
    """
    kind, colon, serial = text.partition(":")
    if kind != "adb" or (colon and not serial):
        raise UserError(f"--device {text}: give adb, or adb:SERIAL with a serial that adb devices lists")
    return serial or None


def choose(devices: Mapping[str, str], serial: str | None) -> str:
    """The serial of the phone to use: the one asked for, else the only one.

    Args:
        devices: serial to state.
        serial: the one asked for.

    Raises: UserError: when there is none, it is not there, there are several, or it cannot be used.
    """
    listed = ", ".join(f"{name} ({state})" for name, state in devices.items())
    if not devices:
        raise UserError(
            "no phone is connected; plug one in with USB debugging switched on (Settings, Developer options), "
            "or adb connect HOST, until adb devices lists it"
        )
    if serial is None and len(devices) > 1:
        raise UserError(f"{len(devices)} phones are connected: {listed}; name one with --device adb:SERIAL")
    chosen = next(iter(devices)) if serial is None else serial
    if chosen not in devices:
        raise UserError(f"phone {chosen} is not connected; adb devices lists {listed}")
    state = devices[chosen]
    if state == "device":
        return chosen
    for prefix, text in STATES.items():
        if state.startswith(prefix):
            raise UserError(f"phone {chosen}: {prefix}: {text}")
    raise UserError(f"phone {chosen} is in state '{state}'; start Android on it and run again")


class Phone:
    """One phone that answers.

    Args:
        adb: the program.
        serial: which phone.
    """

    def __init__(self, adb: Adb, serial: str) -> None:
        self.adb = adb
        self.serial = serial

    def call(self, *arguments: str, doing: str, seconds: float = SECONDS, check: bool = True) -> Result:
        """Run adb on this phone.

        Args:
            arguments: what follows ``adb -s SERIAL``.
            doing: what is being done, for the error.
            seconds: most it may take.
            check: also refuse an exit status other than 0.

        Raises: UserError: when the phone is gone, does not answer, or refuses.
        """
        try:
            result = self.adb.call("-s", self.serial, *arguments, seconds=seconds)
        except TimeoutError:
            self.require(doing)
            raise UserError(
                f"phone {self.serial}: no answer within {seconds:g} s while {doing}; unlock it, plug it in again "
                "and run again"
            ) from None
        if result.code:
            self.require(doing)
            if check:
                raise UserError(
                    f"phone {self.serial}: {doing} failed: {result.reason}; mend that and run again"
                )
        return result

    def require(self, doing: str) -> None:
        """Refuse to go on when the phone is no longer there.

        Raises: UserError: that says what was being done.
        """
        state = self.adb.devices().get(self.serial)
        if state != "device":
            now = f"it is {state} now" if state else "it is not connected any more"
            raise UserError(
                f"phone {self.serial} went away while {doing} ({now}); check the cable, keep it unlocked and run again"
            )

    def shell(self, *words: str, doing: str, check: bool = True) -> Result:
        """Run a command of so many words on the phone."""
        return self.call("shell", shlex.join(words), doing=doing, check=check)

    def as_app(self, script: str, *, doing: str, check: bool = True) -> Result:
        """Run a shell script as the demo app, in its own folder.

        Raises: UserError: when the app is no debug build.
        """
        result = self.shell("run-as", PACKAGE, "sh", "-c", script, doing=doing, check=False)
        if result.code and "run-as:" in (said := f"{result.output}{result.errors}"):
            problem = said[said.index("run-as:") :].splitlines()[0]
            raise UserError(
                f"phone {self.serial}: the app {PACKAGE} cannot be measured ({problem}); install its debug build: "
                f"{HOW_TO_INSTALL}"
            )
        if result.code and check:
            raise UserError(f"phone {self.serial}: {doing} failed: {result.reason}; mend that and run again")
        return result

    def app_file(self) -> str | None:
        """Where the phone keeps the demo app's APK; None when it has none."""
        output = self.shell("pm", "path", PACKAGE, doing="looking for the app", check=False)
        paths = [
            line.partition(":")[2].strip()
            for line in output.output.splitlines()
            if line.startswith("package:")
        ]
        return paths[0] if paths else None

    def app_version(self) -> int:
        """The demo app's versionCode; 0 where the phone does not tell."""
        said = self.shell(
            "dumpsys", "package", PACKAGE, doing="asking for the app's version", check=False
        ).output
        match = re.search(r"versionCode=(\d+)", said)
        return int(match[1]) if match else 0

    def has_this(self, apk: Path, file: str) -> bool:
        """Whether the APK at ``file`` on the phone is ``apk`` to the last byte."""
        output = self.shell("sha256sum", file, doing="comparing the app", check=False)
        return output.output.split()[:1] == [hashlib.sha256(apk.read_bytes()).hexdigest()]

    def install(self, apk: Path) -> None:
        """Install the demo app, over one of another version too; what a person put into it stays.

        Raises: UserError: when the phone refuses it, or it is another app.
        """
        doing = f"installing {apk.name}"
        words = ("install", "-r", "-d", "-t", str(apk))
        result = self.call(*words, doing=doing, seconds=TRANSFER_SECONDS, check=False)
        if result.code or "Failure" in result.output:
            way_out = "free some room or allow installing over USB, or build the APK again"
            if "UPDATE_INCOMPATIBLE" in f"{result.output}{result.errors}":
                way_out = f"the one there is signed by another key: remove it with adb uninstall {PACKAGE}"
            raise UserError(f"phone {self.serial}: {apk} was not installed: {result.reason}; {way_out}")
        if self.app_file() is None:
            raise UserError(f"{apk}: installed, but it is not {PACKAGE}; {HOW_TO_INSTALL}")

    def wake(self) -> None:
        """Switch the screen on; it may stay locked. A phone that knows no such key has its screen on already."""
        self.shell("input", "keyevent", "KEYCODE_WAKEUP", doing="waking the phone", check=False)


def connect(device: str, apk: str | Path | None = None, say: Callable[[str], None] = print) -> Phone:
    """The phone that ``--device`` means, with the demo app on it.

    Args:
        device: ``adb`` or ``adb:SERIAL``; without a serial, the environment variable ANDROID_SERIAL's, or
            the only phone there is.
        apk: the app's file, installed when the app is missing or another.
        say: told what was found and done.

    Raises: UserError: one line for whatever stands in the way.
    """
    serial = parse_device(device) or os.environ.get("ANDROID_SERIAL")
    if apk is not None and not Path(apk).is_file():
        raise UserError(f"--apk {apk}: no such file; {HOW_TO_INSTALL.split(',')[0]}")
    adb = Adb.find()
    phone = Phone(adb, choose(adb.devices(), serial))
    file = phone.app_file()
    if file is None and apk is None:
        raise UserError(f"phone {phone.serial}: the app {PACKAGE} is not installed; {HOW_TO_INSTALL}")
    if apk is not None and not (file and phone.has_this(Path(apk), file)):
        phone.install(Path(apk))
        say(f"phone {phone.serial}: {'updated' if file else 'installed'} {PACKAGE} by {apk}")
    else:
        say(f"phone {phone.serial}: has {PACKAGE}" + (f", the same as {apk}" if apk else ""))
    version = phone.app_version()
    if version < APP_VERSION:
        which = f"{apk} holds" if apk else f"phone {phone.serial}: it has"
        raise UserError(
            f"{which} version {version} of {PACKAGE}, and this ondevice measures with version {APP_VERSION}; "
            f"{HOW_TO_INSTALL}"
        )
    return phone
