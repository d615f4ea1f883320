"""The error a user's own input causes, and how a script reports it."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """A mistake that the user can mend: says where, what was got, what is allowed, and the way out."""


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
    try:
        code = main() or 0
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":  # of the processes of a job the first one speaks
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
