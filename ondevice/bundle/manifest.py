"""manifest.json: what a bundle is, and how to know that its files are those that were exported."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ondevice.bundle.json_object import parse
from ondevice.bundle.manifest_check import check_entries
from ondevice.data.schema import Field, Label, Schema
from ondevice.errors import DamagedFile, UserError

FORMAT = "ondevice-bundle"
FORMAT_VERSION = 3
MANIFEST, PROGRAM, VOCABULARY, CATALOG = "manifest.json", "model.pte", "vocabulary.bin", "catalog.bin"
ITEM_ATTRIBUTES = "item_attributes.safetensors"  # beside a bundle: what it ranks new items by
COST = "export.json"  # beside a bundle: what making it took

ASSUMED = {"side": "context", "kind": "string"}  # of a field that does not say otherwise

_ZEROS = "0" * 64
_HASH_ENTRY = re.compile(rb'\{"sha256":"([0-9a-f]{64})"')


def dump(value: Any) -> str:
    """JSON on one line without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def file_entry(content: bytes) -> dict[str, Any]:
    """A file's entry in the manifest."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def seal(manifest: dict[str, Any]) -> bytes:
    """The manifest's bytes, beginning with the SHA-256 of themselves with zeros in its place."""
    content = dump(
        {"sha256": _ZEROS, "format": FORMAT, "format_version": FORMAT_VERSION, **manifest}
    ).encode()
    return content.replace(_ZEROS.encode(), hashlib.sha256(content).hexdigest().encode(), 1)


def compact_schema(schema: Schema) -> dict[str, Any]:
    """`Schema.to_dict` without the entries that are defaults, which `full_schema` and `Schema.from_dict` know."""
    values = schema.to_dict()
    values["fields"] = [
        {k: v for k, v in _without_defaults(Field, field).items() if ASSUMED.get(k) != v}
        for field in values["fields"]
    ]
    values["label"] = _without_defaults(Label, values["label"])
    return values


def full_schema(values: dict[str, Any]) -> dict[str, Any]:
    """What `compact_schema` wrote, with side and kind of every field."""
    fields = values.get("fields")
    if not isinstance(fields, list):
        return values
    return {**values, "fields": [{**ASSUMED, **f} if isinstance(f, dict) else f for f in fields]}


def _without_defaults(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    defaults = {option.name: option.default for option in dataclasses.fields(kind)}
    return {k: v for k, v in values.items() if (tuple(v) if isinstance(v, list) else v) != defaults[k]}


def read_manifest(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The manifest of a bundle, verified to be as it was written, and its bytes.

    Raises: UserError: naming the file, when it is absent, damaged, or of a newer format; and the entry that is not
        what readers rely on.
    """
    path = folder / MANIFEST
    content = _read(folder, MANIFEST)
    try:
        manifest = parse(content)
    except ValueError as error:
        raise DamagedFile(f"{path}: not JSON ({error}); the file is damaged, export it again") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path}: not the manifest of a bundle (format is not '{FORMAT}')")
    version = manifest.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(
            f"{path}: format version {version}, but this ondevice knows versions up to {FORMAT_VERSION}; "
            "upgrade ondevice"
        )
    if version < FORMAT_VERSION:
        raise UserError(
            f"{path}: format version {version} of an earlier ondevice, this one reads {FORMAT_VERSION}; export it again"
        )
    match = _HASH_ENTRY.match(content)
    zeroed = b"" if match is None else content[: match.start(1)] + _ZEROS.encode() + content[match.end(1) :]
    if match is None or hashlib.sha256(zeroed).hexdigest().encode() != match[1]:
        raise DamagedFile(f"{path}: changed since it was exported (SHA-256 differs); export it again")
    check_entries(manifest, path, full_schema, (MANIFEST, PROGRAM, VOCABULARY, CATALOG))
    return manifest, content


def read_files(folder: Path, manifest: dict[str, Any]) -> dict[str, bytes]:
    """The content of every file the manifest names, verified.

    Raises: DamagedFile: naming the file that is absent or changed.
    """
    contents = {}
    for name, entry in manifest["files"].items():
        content = _read(folder, name)
        if len(content) != entry["bytes"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise DamagedFile(
                f"{folder / name}: changed since it was exported (SHA-256 differs); export it again"
            )
        contents[name] = content
    return contents


def check_replaceable(folder: Path) -> None:
    """Refuse a folder that holds anything but the files of a bundle, of whatever version.

    Raises: UserError: naming what would be lost.
    """
    if not folder.is_dir():
        return
    there = {path.name for path in folder.iterdir()}
    if there - _bundle_files(folder):
        lost = sorted(there - _bundle_files(folder))
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise UserError(
            f"{folder}: not empty and no bundle: {', '.join(lost[:3])}{more} would be lost; give another --output"
        )


def _bundle_files(folder: Path) -> set[str]:
    """Names of the files that belong to the bundle in a folder; none where its manifest is not that of one."""
    try:
        manifest = parse((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return set()
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return set()
    files = manifest.get("files")
    return {MANIFEST, COST, ITEM_ATTRIBUTES, *(files if isinstance(files, dict) else ())}


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        what = "no bundle here" if name == MANIFEST else "a file of the bundle is missing"
        raise DamagedFile(f"{folder / name}: {what} ({error.strerror}); export it again") from None
