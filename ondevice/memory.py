"""How much memory a program adds to a process that loads it and calls it once.

Python with libtorch holds hundreds of megabytes before the first program, so what counts is the difference. Just
before the file is opened the runtime's library is read into memory whole, so that no program is charged for the
code it happens to run first, free heap is given back, and the kernel's high-water mark is reset.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
from collections.abc import Sequence
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
MAPS = Path("/proc/self/maps")
RUNTIME_LIBRARY, KERNEL_LIBRARY = "_portable_lib", "quantized_ops_aot_lib"
PAGE = 4096
_FIELDS = {"VmHWM": "peak", "VmRSS": "resident", "RssAnon": "anonymous"}


def parse_status(text: str) -> dict[str, int]:
    """Bytes of ``peak``, ``resident`` and ``anonymous`` memory from /proc/<pid>/status.

    Raises: ValueError: when a line is missing.
    """
    sizes: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name in _FIELDS:
            amount, unit = rest.split()
            if unit != "kB":
                raise ValueError(f"{name} in {unit}, expected kB")
            sizes[_FIELDS[name]] = int(amount) * 1024
    missing = [name for name, key in _FIELDS.items() if key not in sizes]
    if missing:
        raise ValueError(f"the process status has no {', '.join(missing)}")
    return sizes


def read() -> dict[str, int]:
    """Bytes of peak, resident and anonymous memory of this process.

    Systems without /proc know only the peak since the process began, which stands for all three.
    """
    if STATUS.exists():
        return parse_status(STATUS.read_text())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    return {"peak": peak, "resident": peak, "anonymous": peak}


def map_library(name: str, maps: str | None = None) -> int:
    """Touch every readable page of the libraries whose file name holds ``name``; returns the bytes.

    Args:
        name: part of a file name.
        maps: content of /proc/self/maps; None to read it, and to touch nothing on systems without it.
    """
    touched = 0
    if maps is None:
        maps = MAPS.read_text() if MAPS.exists() else ""
    for line in maps.splitlines():
        addresses, permissions, *_, path = line.split()
        if name in Path(path).name and permissions.startswith("r"):
            begin, end = (int(address, 16) for address in addresses.split("-"))
            for page in range(begin, end, PAGE):
                ctypes.string_at(page, 1)
            touched += end - begin
    return touched


def settle(libraries: Sequence[str] = (RUNTIME_LIBRARY, KERNEL_LIBRARY)) -> dict[str, int]:
    """Map the runtime, give free heap back and reset the peak to what is resident; the reading after that.

    Without it a program's buffers land in heap that earlier work left resident and seem to cost nothing.

    Args:
        libraries: parts of the file names of the runtime's libraries.
    """
    for library in libraries:
        map_library(library)
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # malloc_trim is glibc's
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text("5")  # resets VmHWM, proc(5)
    return read()


def difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What was added between two readings, with the readings' own figures.

    ``peak_rss_bytes`` is the whole process; ``added_rss_bytes`` is its peak over what was resident before
    the file was opened; ``added_anonymous_bytes`` leaves out mapped files (the program, library code).
    """
    return {
        "peak_rss_bytes": after["peak"],
        "rss_before_load_bytes": before["resident"],
        "added_rss_bytes": after["peak"] - before["resident"],
        "added_anonymous_bytes": after["anonymous"] - before["anonymous"],
    }
