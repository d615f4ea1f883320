"""Bytes of what ships, each part named, as the files hold them and as a download would."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

MANIFEST, VOCABULARY, PROGRAM, CATALOG_FILE = "manifest.json", "vocabulary.bin", "model.pte", "catalog.bin"


def deflated_bytes(files: Mapping[str, bytes]) -> int:
    """Bytes of a zip of the files at zlib's level 9, what an app store's download comes close to."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)
    return len(buffer.getvalue())


def bundle_bytes(folder: str | Path) -> dict[str, int]:
    """Bytes of each file of a bundle, of all that a program needs, and of all of it deflated.

    ``bundle`` counts program, vocabulary and manifest. The titles and raw values of ``catalog.bin`` are
    content for a demonstration; they are given apart.
    """
    content = {
        path.name: path.read_bytes()
        for path in sorted(Path(folder).iterdir())
        if path.name in (PROGRAM, VOCABULARY, MANIFEST, CATALOG_FILE)
    }
    needed = {name: data for name, data in content.items() if name != CATALOG_FILE}
    result = {
        "pte": len(content[PROGRAM]),
        "vocabulary": len(content[VOCABULARY]),
        "manifest": len(content[MANIFEST]),
        "bundle": sum(len(data) for data in needed.values()),
        "deflated_bundle": deflated_bytes(needed),
    }
    if CATALOG_FILE in content:
        result["catalog"] = len(content[CATALOG_FILE])
    return result
