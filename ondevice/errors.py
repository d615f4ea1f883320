"""The errors that a user's own input causes, and how a script reports them.

    UserError            a mistake that the user can mend
    ├─ ConfigError       a key, a value or a name in a configuration or in the options of a command
    ├─ DataError         a schema, or a file of data and the rows in it
    ├─ BudgetTooSmall    no model fits the budget that was asked for
    ├─ DamagedFile       a file that ondevice wrote is not as it was written
    └─ MissingPackage    what was asked for needs a package that is not installed

A program that calls the library catches the kind that it can mend, or `UserError` for all of them; all are ValueErrors.
"""

from __future__ import annotations

import difflib
import io
import os
import sys
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """A mistake that the user can mend: says where, what was got, what is allowed, and the way out."""


class ConfigError(UserError):
    """A section, key, value or name that a configuration or a command does not take."""


class DataError(UserError):
    """A schema that contradicts itself, or data that are missing, cannot be read or do not fit the schema."""


class BudgetTooSmall(UserError):
    """Nothing fits the budget; the message names the smallest that can be met, where it is known."""


class DamagedFile(UserError):
    """A file of a run, a bundle or the cache that is cut short, changed or missing from its folder."""


class MissingPackage(UserError):
    """What was asked for needs a package of one of the extras; the message says how it is installed."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """A clause naming the nearest choice and all of them, for messages about unknown names.

    Returns: `` (did you mean 'x'? choose from: x, y)`` or, with no near match, the choices alone.
    """
    options = sorted(str(c) for c in choices)
    close = difflib.get_close_matches(str(name), options, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"({hint}choose from: {', '.join(options) or 'nothing'})"


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and exit: one stderr line and code 2 for a `UserError`, traceback for a bug."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that takes ASCII alone shows ? for what it lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = main() or 0
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads the output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where the rest goes
        code = 0
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":  # of the processes of a job the first one speaks
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
