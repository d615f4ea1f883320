"""Bundles for a phone to measure, and what a stand-in for a phone was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ondevice.bench.phone.adb import connect
from ondevice.bench.phone.devices import benchmark_bundle
from ondevice.bench.phone.phone import Plan
from ondevice.bundle import manifest as manifests
from ondevice.bundle import vocabulary_file
from ondevice.bundle.vocabulary_file import FieldKeys, Group
from ondevice.data.schema import Field, Label, Schema

from .fake_phone import FakePhone

PLAN = Plan(candidates=(1, 100, 1000), threads=(1, 2), seconds=20, calls=50, poll_seconds=0.01)
FORWARD = {
    "inputs": [{"name": "ids", "dtype": "int64", "shape": ["batch", 1]}],
    "outputs": [{"name": "scores", "dtype": "float32", "shape": ["batch"]}],
    "max_batch": 8,
}


def write_bundle(folder: Path, program: bytes = b"program") -> Path:
    """A bundle that opens, whose program nothing here runs."""
    folder.mkdir(parents=True)
    vocabulary = vocabulary_file.encode([FieldKeys(0, (Group(1, 1, [5, 9]),))])
    contents = {manifests.PROGRAM: program, manifests.VOCABULARY: vocabulary}
    schema = Schema("shop", (Field("item", "item", "integer"),), Label("label"), "item")
    manifest = {
        "name": f"shop-{folder.name}",
        "model": "fm",
        "method": "uniform",
        "layout": "staircase",
        "sizes": {"dims": [2], "rows": [2], "first_order_rows": 0},
        "methods": {"forward": FORWARD},
        "ops": [],
        "backends": [],
        "versions": {},
        "golden": [{"raw": {"item": item}, "ids": [item // 5], "score": 0.5} for item in (5, 9)],
        "schema": manifests.compact_schema(schema),
        "num_rows": 3,
        "files": {name: manifests.file_entry(content) for name, content in contents.items()},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / manifests.MANIFEST).write_bytes(manifests.seal(manifest))
    return folder


def calls(folder: Path) -> list[list[str]]:
    """Every call of the stand-in."""
    return [json.loads(line) for line in (folder / "calls.jsonl").read_text().splitlines()]


def left_on_phone(folder: Path) -> list[str]:
    """Files that a measurement left behind."""
    return FakePhone(folder / "phone", {}).left()


def run_on_phone(bundle: Path, plan: Plan = PLAN) -> dict[str, Any]:
    quiet: list[str] = []
    return benchmark_bundle(connect("adb", say=quiet.append), bundle, plan, quiet.append)
