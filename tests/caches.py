"""A cache of the tests' own, which reads that of whoever runs them."""

from __future__ import annotations

import contextlib
from pathlib import Path


def lend(lender: Path, folder: Path) -> Path:
    """A cache whose sources are the lender's, downloads included, and whose stores are new beside links to those.

    A link is replaced, not followed, where its store has to be made again. Processes may call this at once.
    """
    sources = lender / "sources"
    with contextlib.suppress(OSError):  # where that cannot be, downloads end with the session
        sources.mkdir(parents=True, exist_ok=True)
    (folder / "stores").mkdir(parents=True, exist_ok=True)
    for path in (sources, *(lender / "stores").glob("[!.]*")):
        if path.is_dir():
            with contextlib.suppress(FileExistsError):
                (folder / path.relative_to(lender)).symlink_to(path.resolve())
    return folder
