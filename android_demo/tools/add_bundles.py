"""Copies exported bundles into the app's assets, where Gradle and ``build_apk.py`` pack them.

    python android_demo/tools/add_bundles.py RUN/bundles/64KB [NAME=OTHER_BUNDLE ...] [--keep]

A bundle is shown in the app under its folder's name, or under NAME. What was there before is removed, unless
``--keep`` is given.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "app" / "src" / "main" / "assets" / "bundles"


def parse(text: str) -> tuple[str, Path]:
    """Name and folder of an argument ``FOLDER`` or ``NAME=FOLDER``."""
    name, separator, folder = text.partition("=")
    path = Path(folder if separator else text)
    return (name if separator else path.resolve().name), path


def bundle_files(name: str, folder: Path) -> list[Path]:
    """The files of a bundle. Raises ValueError when it is none."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", name):
        raise ValueError(
            f"'{name}' cannot name a bundle; write NAME={folder} with letters, digits, '.', '_' and '-'"
        )
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise ValueError(f"{folder} is no bundle: it has no manifest.json")
    files = [manifest, *(folder / file for file in json.loads(manifest.read_text(encoding="utf-8"))["files"])]
    for file in files:
        if not file.is_file():
            raise ValueError(f"{folder} is not a whole bundle: {file.name} is missing")
    return files


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+", metavar="[NAME=]BUNDLE")
    parser.add_argument("--keep", action="store_true", help="leave the bundles that are there")
    parser.add_argument("--assets", type=Path, default=ASSETS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        files_of = {name: bundle_files(name, folder) for name, folder in map(parse, options.bundles)}
        if len(files_of) != len(options.bundles):
            raise ValueError("two bundles have one name; write NAME=BUNDLE")
    except (ValueError, KeyError) as error:
        print(error, file=sys.stderr)
        return 2
    if not options.keep:
        shutil.rmtree(options.assets, ignore_errors=True)
    for name, files in files_of.items():
        target = options.assets / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, target / file.name)
        print(f"{name}: {sum(file.stat().st_size for file in files):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
