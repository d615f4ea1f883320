"""List what the cache holds, and remove what is not wanted any more.

ondevice cache                    lists it
ondevice cache --remove NAME …    removes entries by name
ondevice cache --unused 30        removes what nothing has opened for 30 days

Stores are prepared data sets, tables those handed to `ondevice.train`; both, and what a broken preparation left, are
made again when they are wanted. Downloads (sources) are removed by name alone.
"""

from __future__ import annotations

import argparse
import time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--remove", nargs="+", default=[], metavar="NAME", help="entries to remove")
    parser.add_argument("--unused", type=float, metavar="DAYS", help="remove what was not opened for so long")


def run(arguments: argparse.Namespace) -> None:
    from ondevice.data.cache import DAY, entries, remove
    from ondevice.data.sources import cache_directory

    gone = remove(arguments.remove, arguments.unused)
    shown = gone or entries()
    print(f"{'removed from' if gone else 'in'} {cache_directory()}")
    for entry in shown:
        days = (time.time() - entry.used) / DAY
        print(f"{entry.kind:>10} {entry.size:>15,} bytes  opened {days:5.1f} days ago  {entry.path.name}")
    print(f"{sum(entry.size for entry in shown):>26,} bytes in all")
