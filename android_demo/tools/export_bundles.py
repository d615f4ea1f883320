"""Trains a small model on MovieLens-1M and exports it as the bundles that `verify.py` takes.

    python android_demo/tools/export_bundles.py OUT

OUT gets ``fp32``, ``int8`` and ``int4`` (the dense model by torchao and ExecuTorch alone), ``ours`` (the compact one),
``next`` (self-attention over what a person did, in int8, with golden cases of histories of up to 400 films, and new
films beside it), ``next_gaps`` (the same, but it reads the time until the next film, too) and ``tables``: a program
whose score is the largest value of a row's int8 embeddings, so that it must be the same number on every processor.
The model is of the main job's shape, so that instructions counted of it are of a real size; it learns from 200,000
ratings for some seconds. Where MovieLens-1M cannot be had, OUT gets the reason alone.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import nn

import ondevice
from ondevice.bench.dense.dense_bundles import export_dense
from ondevice.bundle.manifest import CATALOG, PROGRAM, VOCABULARY
from ondevice.bundle.vocabulary_file import decode
from ondevice.data import Dataset
from ondevice.data.sets.movielens import SOURCE_1M
from ondevice.data.sources import obtain
from ondevice.errors import UserError, run_script
from ondevice.files import atomic_json, atomic_write
from ondevice.program.attribute_values import attribute_values, stored_vectors
from ondevice.program.bundle import Bundle, make_bundle
from ondevice.program.endpoints import make_endpoints
from ondevice.program.export import Exported, ExportOptions
from ondevice.program.export_run import export_run
from ondevice.program.golden import Moment
from ondevice.program.new_items import NewItems, write_attributes, write_new_items
from ondevice.program.next_item_export import (
    export_model,
    long_golden_moments,
    long_golden_rows,
)
from ondevice.program.pack import PackedRecommender
from ondevice.program.targets import shipped
from ondevice.run.next_item import load_run

NUM_GOLDEN = 32
UNAVAILABLE = "unavailable.txt"
CONFIG: dict[str, Any] = {
    "data": {"name": "movielens_1m", "fields": "full", "max_rows": 200_000},
    "model": {"name": "deepfm", "hidden": [100, 100], "dropout": 0.2},
    "embedding": {"dim": 32},
    "train": {"epochs": 1},
    "compact": {
        "budgets": ["96KB"],
        "sizes": {
            "name": "pep",
            "granularity": "feature-dimension",
            "regime": "budget",
            "epochs": 2,
            "threshold_learning_rate": 1e-2,
        },
        "store": {"max_size": 8, "size_step": 2},
        "train": {"epochs": 1},
    },
    "run": {"device": "cpu", "threads": 1, "progress": False},
}


NEXT = "next"
NEXT_CONFIG: dict[str, Any] = {
    "recipe": "next_item",
    "data": {
        "name": "movielens_1m",
        "fields": "next_item_attributes",
        "split": "leave_last_out",
        "max_rows": 200_000,
    },
    "train": {"epochs": 1, "item_dropout": 0.1},
    "run": CONFIG["run"],
}
NEXT_GAPS = "next_gaps"
NEXT_GAPS_CONFIG: dict[str, Any] = {**NEXT_CONFIG, "data": {**NEXT_CONFIG["data"], "gaps": "until"}}


NEW_FILMS = [
    {"item": 4001, "title": "A New Western", "year": 2001, "genres": ["Drama", "Western"]},
    {"item": 4002, "genres": ["Comedy", "no genre"]},
    {"item": 4003, "year": "1950"},
]
"""Films that no training saw, for the readers of Python and Kotlin to agree on."""


class LargestValue(nn.Module):
    """The largest of a row's embedding values: looked up and scaled, in no order that a processor could change.

    Shape: ids (B, F) int64 -> (B,) float32.
    """

    def __init__(self, packed: PackedRecommender) -> None:
        super().__init__()
        self.packed = packed

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.packed.table(ids).flatten(1).amax(1)


def tables_bundle(exported: Exported, dataset: Dataset) -> Bundle:
    """The bundle ``tables`` of an exported model, in memory."""
    schema, manifest = dataset.schema, exported.bundle.manifest
    methods = make_endpoints(
        exported.quantized,
        ["forward"],
        context_columns=schema.context_columns,
        item_columns=schema.item_columns,
    )
    methods["forward"] = replace(methods["forward"], module=LargestValue(exported.quantized))
    lowered = shipped().lower(methods)
    entries = {
        **manifest,
        "name": "tables",
        "methods": {name: method.signature for name, method in methods.items()},
        "ops": list(lowered.ops),
        "backends": list(lowered.backends),
    }
    entries.pop("catalog", None)
    return make_bundle(
        program=lowered.data,
        vocabulary=exported.packed.order.field_keys,
        schema=schema,
        manifest=entries,
        golden=[case["raw"] for case in manifest["golden"]],
    )


def with_golden(bundle: Bundle, golden: list[dict[str, Any]], moments: Sequence[Moment] = ()) -> Bundle:
    """The bundle with other golden cases than ship, and their moments where it reads time gaps."""
    return make_bundle(
        program=bundle.contents[PROGRAM],
        vocabulary=decode(bundle.contents[VOCABULARY], VOCABULARY, bundle.num_rows),
        schema=bundle.schema,
        manifest=bundle.manifest,
        golden=golden,
        moments=moments,
        catalog=bundle.catalog if CATALOG in bundle.contents else None,
    )


def write_next(output: Path, name: str, config: dict[str, Any]) -> tuple[Bundle, int]:
    """A bundle of the next item, which takes new films, with golden cases of histories of every length.

    Beside it are ``new_items.json`` and what Python makes of it, ``new_items_expected.json``.
    """
    run = ondevice.train(config, output=output / f"{name}_run")
    recommender, dataset = load_run(run)
    made = export_model(recommender, dataset, name, run.config.model.name, {}, catalog=True)
    golden = long_golden_rows(dataset)
    bundle = with_golden(made.bundle, golden, long_golden_moments(dataset)).write(output / name)
    attributes = attribute_values(run, made.quantized)
    assert attributes is not None
    fields, values = attributes
    write_attributes(bundle.path, bundle.contents[PROGRAM], stored_vectors(made.quantized), values, fields)
    write_new_items(output / name / "new_items.json", bundle, NEW_FILMS)
    new = NewItems.of(bundle, NEW_FILMS)
    expected = {"places": new.places.tolist(), "coefficients": new.coefficients.tolist()}
    atomic_json(output / name / "new_items_expected.json", expected)
    return bundle, len(golden)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="a folder, which is removed first")
    output = parser.parse_args().output
    shutil.rmtree(output, ignore_errors=True)
    try:
        obtain(SOURCE_1M)
    except UserError as error:  # `verify.py` says so for every part
        atomic_write(output / UNAVAILABLE, f"{error}\n")
        return 0
    run = ondevice.train(CONFIG, output=output / "run")
    dataset = run.dataset()
    options = ExportOptions(catalog=True)
    (exported,) = export_run(run.path, output=output / "ours", options=options)
    bundles = {"ours": exported.bundle, "tables": tables_bundle(exported, dataset)}
    bundles |= {bundle.path.name: bundle for bundle in export_dense(run.path, output=output, catalog=True)}
    golden = dataset.raw_rows("test", list(range(NUM_GOLDEN)))
    written = {
        name: (with_golden(bundle, golden).write(output / name), len(golden))
        for name, bundle in bundles.items()
    }
    written[NEXT] = write_next(output, NEXT, NEXT_CONFIG)
    written[NEXT_GAPS] = write_next(output, NEXT_GAPS, NEXT_GAPS_CONFIG)
    for name, (bundle, num_golden) in written.items():
        print(f"{name}: {bundle.total_bytes:,} bytes, {num_golden} golden cases")
    return 0


if __name__ == "__main__":
    run_script(main)
