"""What the cache holds, and its clearing."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from ondevice.data.sources import cache_directory
from ondevice.errors import ConfigError, nearest

KINDS = {"stores": "store", "tables": "table", "sources": "source"}
DAY = 86400.0


@dataclass(frozen=True)
class Entry:
    """A folder or file of the cache: what it is, its bytes, and when it was last opened."""

    path: Path
    kind: str
    size: int
    used: float


def entries() -> list[Entry]:
    """All there is, the oldest first."""
    root, result = cache_directory(), []
    for folder, kind in KINDS.items():
        for path in sorted((root / folder).glob("*")):
            if path.suffix == ".lock":
                continue
            hidden = path.name.startswith(".")
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            size = sum(file.stat().st_size for file in files)
            result.append(Entry(path, "unfinished" if hidden else kind, size, path.stat().st_mtime))
    for path in root.glob(".[rd]*.*"):  # of a reading or a download that was killed
        result.append(Entry(path, "unfinished", 0, path.stat().st_mtime))
    return sorted(result, key=lambda entry: entry.used)


def remove(names: list[str], unused_days: float | None) -> list[Entry]:
    """Remove entries by name, and those that nothing has opened for so many days. Returns what is gone.

    Raises: UserError: for a name that is not there.
    """
    there = {entry.path.name: entry for entry in entries()}
    for name in names:
        if name not in there:
            raise ConfigError(
                f"--remove {name}: {cache_directory()} holds no such entry {nearest(name, there)}"
            )
    chosen = {name: there[name] for name in names}
    if unused_days is not None:
        bound = time.time() - unused_days * DAY
        chosen |= {n: e for n, e in there.items() if e.used < bound and e.kind != "source"}
    for entry in chosen.values():
        if entry.path.is_dir():
            shutil.rmtree(entry.path)
        else:
            entry.path.unlink()
    return list(chosen.values())
