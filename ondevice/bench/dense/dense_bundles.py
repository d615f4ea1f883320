"""The dense programs as bundles, for what takes bundles: the demo app, and the counts of arm64 instructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.bench.dense.baselines import Baseline, make_baseline
from ondevice.bundle.catalog import catalog_items
from ondevice.bundle.rows import RowOrder
from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.program.bundle import Bundle, make_bundle
from ondevice.program.export import golden_rows, versions
from ondevice.program.stock import check_stock
from ondevice.program.targets import shipped
from ondevice.recommender import Recommender
from ondevice.run.directory import Run

DENSE = ("fp32", "int8", "int4")


def dense_bundle(
    baseline: Baseline,
    recommender: Recommender,
    dataset: Dataset,
    *,
    name: str,
    model: str,
    catalog: bool = False,
) -> Bundle:
    """A dense program with its vocabulary, in memory. Its rows are the training ids.

    Args:
        baseline: made with a row of zeros.
        recommender: what it was made of.
        dataset: what that was trained on.
        name: of the bundle.
        model: name of the base model.
        catalog: whether to add catalog.bin.

    Raises: UserError: when the stock Android runtime lacks an operator, or the data set names no items.
    """
    num_rows, schema = dataset.vocabulary.num_embeddings, dataset.schema
    ids = np.arange(num_rows)
    has_first_order = np.full(num_rows, recommender.first_order is not None)
    order = RowOrder(
        dataset.vocabulary.field_offsets,
        ids,
        ids,
        np.ones(num_rows, dtype=np.int64),
        has_first_order,
        dataset.vocabulary.key_texts(),
    )
    needs = shipped().inspect(baseline.pte, baseline.name)
    check_stock([*needs.ops, *needs.backends])
    manifest: dict[str, Any] = {
        "name": name,
        "model": model,
        "method": baseline.name,
        "layout": "dense",
        "num_rows": num_rows,
        "sizes": {
            "dims": [recommender.embedding.embedding_dim],
            "rows": [num_rows],
            "first_order_rows": order.first_order_rows,
        },
        "methods": {"forward": _signature(schema.slots.total, baseline.max_batch)},
        "ops": list(needs.ops),
        "backends": list(needs.backends),
        "versions": versions(),
        "metrics": {},
    }
    described = None
    if catalog:
        if dataset.catalog is None:
            raise UserError("--catalog: this data set names no items, so there is no catalog to write")
        described = catalog_items(dataset, order).described
        manifest["catalog"] = {"key_field": schema.item_key, "num_items": len(described)}
    return make_bundle(
        program=baseline.pte,
        vocabulary=order.field_keys,
        schema=schema,
        manifest=manifest,
        golden=golden_rows(dataset),
        catalog=described,
    )


def _signature(num_slots: int, max_batch: int) -> dict[str, Any]:
    ids = {"name": "ids", "dtype": "int64", "shape": ["batch", num_slots]}
    scores = {"name": "scores", "dtype": "float32", "shape": ["batch"]}
    return {"inputs": [ids], "outputs": [scores], "max_batch": max_batch}


def export_dense(
    path: str | Path,
    names: Sequence[str] = DENSE,
    *,
    output: str | Path | None = None,
    catalog: bool = False,
    max_batch: int = 1024,
    say: Callable[[str], None] = print,
    data: Mapping[str, Any] | None = None,
) -> list[Bundle]:
    """Write a run's dense model as one bundle per format.

    Args:
        path: the run directory.
        names: some of `baselines.FORMATS`.
        output: where to write a directory per format; by default ``dense_bundles`` in the run directory.
        catalog: whether to add catalog.bin.
        max_batch: most rows of one call.
        say: told each bundle as it is written.
        data: options that say where the data are now.

    Raises: UserError: when a format is unknown, or cannot be had of this model.
    """
    run = Run(path, data)
    dataset, dense, model = run.dataset(rows=False), run.dense(), run.metrics["model"]
    base = Path(output) if output is not None else run.path / "dense_bundles"
    written = []
    for name in names:
        baseline = make_baseline(dense, name, max_batch=max_batch, zero_row=True)
        full_name = f"{dataset.schema.name}-{model}-{name}"
        bundle = dense_bundle(baseline, dense, dataset, name=full_name, model=model, catalog=catalog)
        written.append(bundle.write(base / name))
        say(f"{written[-1].path}: {written[-1].total_bytes:,} bytes")
    return written
