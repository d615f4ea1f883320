"""Commands: ``ondevice NAME …``, ``python -m ondevice NAME …``, and the scripts that are their twins in a checkout.

A command is a file of this folder with its help as docstring, ``add_arguments(parser)`` and ``run(arguments)``, which
loads PyTorch and ExecuTorch only when the arguments are known to be right.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from ondevice.errors import ConfigError, nearest, run_script
from ondevice.version import __version__

COMMANDS = ("train", "export", "benchmark", "peers", "study", "inspect", "list", "config", "cache")


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are told like all others: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def command(name: str) -> ModuleType:
    """The file of a command."""
    return importlib.import_module(f"ondevice.cli.{name}")


def call(name: str, given: Sequence[str], program: str | None = None, twin: str | None = None) -> None:
    """Run a command with the words behind its name.

    Args:
        name: one of `COMMANDS`.
        given: arguments.
        program: what messages call it; None for the name of the script.
        twin: the script that is running (``train/run.py``), for the help.
    """
    module = command(name)
    described = module.__doc__ or ""
    if twin is not None:
        described = described.replace(f"-m ondevice {name}", twin).replace(
            f"ondevice {name}", f"python {twin}"
        )
    parser = Parser(
        prog=program,
        description=described,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    module.run(parser.parse_intermixed_args(given))


def main() -> None:
    """The console command."""
    lines = (f"  {name:10} {(command(name).__doc__ or '').splitlines()[0]}" for name in COMMANDS)
    parser = Parser(
        prog="ondevice",
        usage="ondevice COMMAND … [--help] [--version]",
        description="Recommenders that learn how many dimensions each feature deserves, and ship to phones.",
        epilog="commands (ondevice COMMAND --help says more):\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ondevice {__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.command is None:
        raise ConfigError(f"no command given; choose from: {', '.join(COMMANDS)}")
    if arguments.command not in COMMANDS:
        raise ConfigError(f"no command '{arguments.command}' {nearest(arguments.command, COMMANDS)}")
    call(arguments.command, arguments.rest, f"ondevice {arguments.command}")


def run_console() -> None:
    """What the installed ``ondevice`` starts."""
    run_script(main)


def run_twin(name: str, script: str) -> None:
    """What a script in ``train/`` or ``export/`` starts: the command of that name."""
    run_script(lambda: call(name, sys.argv[1:], twin=script))
