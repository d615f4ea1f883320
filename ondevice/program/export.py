"""From a trained model to a bundle: what ``export/to_pte.py`` and the library's users call."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

import ondevice
from ondevice import memory
from ondevice.config import parse_budget
from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.files import atomic_json
from ondevice.program.bundle import Bundle, make_bundle
from ondevice.program.catalog import catalog_items
from ondevice.program.fitting import largest_fitting
from ondevice.program.lower import load_exporter, lower
from ondevice.program.manifest import MANIFEST, PROGRAM, VOCABULARY
from ondevice.program.methods import MAX_BATCH, TOP_K, Method, Recommend, make_methods
from ondevice.program.pack import PackedRecommender, pack
from ondevice.program.parity import parity
from ondevice.program.quantize import is_float_linear, quantize
from ondevice.program.tables import Staircase
from ondevice.program.vocabulary_file import vocabulary_bytes
from ondevice.recommender import Recommender
from ondevice.training.bytes import default_methods, linear_bytes
from ondevice.training.elastic import ElasticRun
from ondevice.training.run import Run, elastic_label, elastic_target

# Largest difference of a score between the quantized model in PyTorch and its program. XNNPACK may round an
# activation the other way, one step of 255; a wrong table or operator is off by far more.
PROGRAM_TOLERANCE = 0.02
PACKING_TOLERANCE = 1e-3
COST = "export.json"  # beside a bundle: what making it took


@dataclass(frozen=True)
class ExportOptions:
    """How a model is exported."""

    layout: str = "staircase"
    """staircase (sizes) or csr (positions)."""
    quantization: str = "int8"
    """int8 or none (float32)."""
    methods: tuple[str, ...] | None = None
    """Some of forward, rank, recommend; None for what the run's ``retrain.methods`` says, or all that the schema and
    its catalog allow."""
    catalog: bool = False
    """Whether to write catalog.json, titles and raw values of all items."""
    top_k: int = TOP_K
    """Items that recommend returns."""
    max_batch: int = MAX_BATCH
    """Most rows of forward, and items of rank, in one call."""


@dataclass(frozen=True)
class Reading:
    """A moment of an export.

    Args:
        seconds: of a clock that only grows.
        memory: as `memory.read` gives it.
    """

    seconds: float
    memory: dict[str, int]

    @classmethod
    def now(cls) -> Reading:
        return cls(time.perf_counter(), memory.read())


@dataclass
class Exported:
    """A bundle with the models it was made of.

    Args:
        label: name of the compact model.
        recommender: the eager model.
        packed: with float values, in program order.
        quantized: what was lowered.
        bundle: the result.
        parity: what `parity.parity` measured; empty when it was not.
        num_delegated: operators inside delegates.
        num_portable: operators outside.
        catalog_bytes: of the program, what ``recommend`` holds per item.
        done: clock and memory when the bundle was made, before it was checked.
        cost: of an export from a run directory, what `export_cost` says.
    """

    label: str
    recommender: Recommender
    packed: PackedRecommender
    quantized: PackedRecommender
    bundle: Bundle
    parity: dict[str, Any] = field(default_factory=dict)
    num_delegated: int = 0
    num_portable: int = 0
    catalog_bytes: int = 0
    done: Reading | None = None
    cost: dict[str, float] = field(default_factory=dict)

    def measure_parity(self, dataset: Dataset) -> None:
        """Compare all links of the chain over the test split.

        Raises: RuntimeError: when the program is not what it was made of.
        """
        self.parity = parity(self.recommender, self.packed, self.quantized, self.bundle, dataset.test)
        _check_parity(self.parity)

    def byte_parts(self) -> dict[str, int]:
        """Bytes of the bundle by what they hold; they add up to the whole."""
        sizes = self.bundle.file_bytes()
        tables = [table.stored_bytes() for table in self.quantized.tables()]
        linears = sum(
            linear_bytes(m.in_features, m.out_features, self._bits(m), m.bias is not None)
            for m in self.quantized.modules()
            if isinstance(m, nn.Linear)
        )
        named = {
            "embeddings": tables[0],
            "first_order": sum(tables[1:]),
            "linears": linears,
            "catalog": self.catalog_bytes,
            "program": sizes[PROGRAM] - sum(tables) - linears - self.catalog_bytes,
        }
        return {**named, **{name: size for name, size in sizes.items() if name != PROGRAM}}

    def _bits(self, linear: nn.Linear) -> int:
        if is_float_linear(linear):
            return 32
        return self.quantized.model.linear_bits if linear.out_features > 1 else 8


def export_model(
    recommender: Recommender,
    dataset: Dataset,
    *,
    name: str,
    model: str,
    method: str,
    metrics: dict[str, Any] | None = None,
    options: ExportOptions = ExportOptions(),
    check: bool = True,
) -> Exported:
    """The bundle, in memory, of a trained model.

    Args:
        recommender: in evaluation mode.
        dataset: what it was trained on: vocabulary, catalog, and test rows for golden cases and the check.
        name: name of the bundle.
        model: name of the base model.
        method: name of the embedding method.
        metrics: what the manifest says of the training.
        options: layout, quantization, methods.
        check: compare eager model and program over the whole test split.

    Raises: UserError: when the model cannot be exported so.
    """
    packed = pack(recommender, options.layout, dataset.vocabulary.key_texts())
    return _export_packed(recommender, packed, dataset, name, model, method, metrics or {}, options, check)


def _export_packed(
    recommender: Recommender,
    packed: PackedRecommender,
    dataset: Dataset,
    name: str,
    model: str,
    method: str,
    metrics: dict[str, Any],
    options: ExportOptions,
    check: bool,
) -> Exported:
    schema, order = dataset.schema, packed.order
    quantized = quantize(packed, options.quantization)
    names = options.methods or default_methods(dataset)
    hashes_items = schema.item_key is not None and order.is_hashed(schema.names.index(schema.item_key))
    if hashes_items:
        if options.catalog or "recommend" in (options.methods or ()):
            raise UserError(
                f"'{schema.item_key}' is hashed, so a bundle does not know which items there are; export with "
                "--methods forward,rank and without --catalog"
            )
        names = tuple(name for name in names if name != "recommend")
    items = catalog_items(dataset, order) if dataset.catalog is not None and not hashes_items else None
    if options.catalog and items is None:
        raise UserError("--catalog: this data set names no items, so there is no catalog to write")
    methods = make_methods(
        quantized,
        names,
        context_fields=schema.context_fields,
        item_fields=schema.item_fields,
        catalog=None if items is None else items.rows,
        max_batch=options.max_batch,
        top_k=options.top_k,
    )
    lowered = lower(methods)
    manifest: dict[str, Any] = {
        "name": name,
        "model": model,
        "method": method,
        "layout": options.layout,
        "num_rows": order.num_rows,
        "sizes": _sizes(packed),
        "methods": {key: value.signature for key, value in methods.items()},
        "ops": list(lowered.ops),
        "backends": list(lowered.backends),
        "versions": versions(),
        "metrics": metrics,
    }
    if items is not None and ("recommend" in methods or options.catalog):
        manifest["catalog"] = {"key_field": schema.item_key, "num_items": len(items.rows)}
    bundle = make_bundle(
        program=lowered.data,
        vocabulary=order.field_keys,
        schema=schema,
        manifest=manifest,
        golden=golden_rows(dataset),
        catalog=items.described if items is not None and options.catalog else None,
    )
    result = Exported(
        name,
        recommender,
        packed,
        quantized,
        bundle,
        num_delegated=lowered.num_delegated,
        num_portable=lowered.num_portable,
        catalog_bytes=_catalog_bytes(methods),
        done=Reading.now(),
    )
    if check:
        result.measure_parity(dataset)
    return result


def _catalog_bytes(methods: dict[str, Method]) -> int:
    recommend = methods.get("recommend")
    return (
        recommend.module.catalog.stored_bytes()
        if recommend and isinstance(recommend.module, Recommend)
        else 0
    )


def _check_parity(measured: dict[str, Any]) -> None:
    for link, limit in (("eager_vs_packed", PACKING_TOLERANCE), ("int8_vs_pte_max_abs", PROGRAM_TOLERANCE)):
        if not measured[link] <= limit:
            raise RuntimeError(f"the exported program is wrong: {link} is {measured[link]}, above {limit}")


def _sizes(packed: PackedRecommender) -> dict[str, Any]:
    table, first_order_rows = packed.table, packed.order.first_order_rows
    if isinstance(table, Staircase):
        widths = [table.width] * table.columns
        widths[-1] = table.dim - table.width * (table.columns - 1)
        return {"dims": widths, "rows": table.column_heights, "first_order_rows": first_order_rows}
    return {
        "dims": [table.dim],
        "rows": [int((packed.order.classes > 0).sum())],
        "first_order_rows": first_order_rows,
    }


def versions() -> dict[str, str]:
    """Versions of what made the program."""
    found = {name: version(name).split("+")[0] for name in ("torch", "torchao", "executorch")}
    return {"ondevice": ondevice.__version__, **found}


def golden_rows(dataset: Dataset) -> list[dict[str, Any]]:
    """A real row of the test split, and one half of whose values are unknown."""
    count = min(2, len(dataset.test))
    rows = dataset.raw_rows("test", list(range(count)))
    rows = rows if count == 2 else rows * 2
    half = {name: None if place % 2 else value for place, (name, value) in enumerate(rows[1].items())}
    return [rows[0], half]


def export_run(
    path: str | Path,
    *,
    budgets: Sequence[str] = (),
    labels: Sequence[str] = (),
    output: str | Path | None = None,
    options: ExportOptions = ExportOptions(),
    check: bool = True,
) -> list[Exported]:
    """Export compact models of a run directory.

    Args:
        path: the run directory.
        budgets: bytes of the whole bundle (``64KB``); for each, the largest compact model that fits, cut to measure
            where the run is elastic.
        labels: compact models to export, by label; with neither, all of them.
        output: where to write: the directory of a single bundle, or of one directory per bundle. By default
            ``bundles/<label or budget>`` in the run directory.
        options: layout, quantization, methods.
        check: compare eager model and program over the whole test split.

    Raises: UserError: when a budget cannot be met, naming the smallest bundle.
    """
    run = Run(path)
    exporter = _RunExporter(run, options, check)
    if not exporter.labels:
        raise UserError(f"{path}: holds no compact model yet; finish the training with --resume")
    chosen: list[tuple[str, Exported]] = [(label, exporter.export(label)) for label in labels]
    for budget in budgets:
        chosen.append((str(budget).replace(" ", ""), exporter.fitting(budget)))
    if not labels and not budgets:
        chosen = [(label, exporter.export(label)) for label in exporter.labels]
    base = Path(output) if output is not None else run.path / "bundles"
    results = []
    for place, exported in chosen:
        single = output is not None and len(chosen) == 1
        written = exported.bundle.write(base if single else base / place)
        if exported.cost:
            atomic_json(written.path / COST, exported.cost)
        results.append(dataclasses.replace(exported, bundle=written))
    return results


class _RunExporter:
    def __init__(self, run: Run, options: ExportOptions, check: bool) -> None:
        methods = options.methods or run.config.retrain.methods
        self.run, self.check = run, check
        self.options = dataclasses.replace(options, methods=methods)
        self.elastic = ElasticRun(run) if run.config.retrain.elastic else None
        self.labels = run.budgets()
        self.metrics = run.metrics
        self.dataset = run.dataset()
        self.exported: dict[str, Exported] = {}
        self.packed: dict[str, tuple[Recommender, PackedRecommender]] = {}

    def pack(self, label: str) -> tuple[Recommender, PackedRecommender]:
        if label not in self.packed:
            target = elastic_target(label)
            if self.elastic is not None and target is not None:
                recommender = self.elastic.compact(target)
            else:
                recommender = self.run.compact(label)
            texts = self.dataset.vocabulary.key_texts()
            self.packed[label] = recommender, pack(recommender, self.options.layout, texts)
        return self.packed[label]

    def export(self, label: str, *, check: bool | None = None) -> Exported:
        check = self.check if check is None else check
        if label not in self.exported:
            model, method = self.metrics["model"], self.metrics["method"]
            recommender, packed = self.pack(label)
            own = self.metrics.get("budgets", {}).get(label, {})
            if self.elastic is not None and not own:
                own = {"valid_auc": self.elastic.valid(recommender)["auc"]}
            metrics = {
                key: round(own[key], 5) for key in ("valid_auc", "test_auc") if own.get(key) is not None
            }
            name = f"{self.dataset.schema.name}-{model}-{method}-{label}"
            load_exporter()
            self.packed.pop(label, None)  # packing is a part of what is measured
            began = Reading(time.perf_counter(), memory.settle(()))
            recommender, packed = self.pack(label)
            made = _export_packed(
                recommender, packed, self.dataset, name, model, method, metrics, self.options, check
            )
            if made.done is not None:
                values = self.dataset.vocabulary.num_embeddings * self.run.config.embedding.dim
                made.cost = export_cost(began, made.done, 4 * values)
            self.exported[label] = made
        exported = self.exported[label]
        if check and not exported.parity:
            exported.measure_parity(self.dataset)
        return exported

    def fitting(self, budget: str) -> Exported:
        """The largest compact model whose bundle fits the budget."""
        unit, limit = parse_budget(budget)
        if unit != "bytes":
            raise UserError(f"--budget {budget}: give the bytes of the whole bundle, such as 64KB or 1.5MB")
        if self.elastic is not None:
            return self._cut_to(budget, int(limit), self.elastic)
        for label in self.labels:
            if self._least_bytes(label) <= limit and self.export(label).bundle.total_bytes <= limit:
                return self.exported[label]
        smallest = min((self.export(label) for label in self.labels[-1:]), key=lambda e: e.bundle.total_bytes)
        raise UserError(
            f"--budget {budget}: {self._described(smallest)}; train a smaller one with search.budgets=[...] "
            "or a narrower model.hidden, or leave out a method with --methods forward,rank"
        )

    def _cut_to(self, budget: str, limit: int, elastic: ElasticRun) -> Exported:
        """The largest part of an elastic model whose bundle fits, found on the bytes of real exports."""

        def estimated(target: int) -> int:
            return elastic.estimated_bytes(target, self.options.methods)

        def measured(target: int) -> int:
            return self.export(elastic_label(target), check=False).bundle.total_bytes

        least = elastic.least_target()
        found = largest_fitting(limit, range(least, elastic.largest_target() + 1), estimated, measured)
        if found is None:
            smallest = self._described(self.export(elastic_label(least), check=False))
            raise UserError(
                f"--budget {budget}: {smallest}, with one row left in its tables; train with a narrower model.hidden, "
                "or leave out a method with --methods forward,rank"
            )
        return self.export(elastic_label(found))

    def _described(self, smallest: Exported) -> str:
        """Which bundle is the smallest, and what its bytes are."""
        sizes = smallest.bundle.file_bytes()
        parts = ", ".join(f"{name} {sizes[name]:,}" for name in (PROGRAM, VOCABULARY, MANIFEST))
        return (
            f"the smallest bundle of {self.run.path} is '{smallest.label}' with "
            f"{smallest.bundle.total_bytes:,} bytes ({parts})"
        )

    def _least_bytes(self, label: str) -> int:
        """A bound below the bundle's bytes that needs no export: tables and vocabulary."""
        _, packed = self.pack(label)
        shrinks = 1 if self.options.quantization == "int8" else 4
        tables = sum(table.stored_bytes() for table in packed.tables())
        return tables // 4 * shrinks + vocabulary_bytes(packed.order.field_keys)


def export_cost(began: Reading, done: Reading, dense_table_bytes: int) -> dict[str, float]:
    """Seconds and memory from a run's files to a bundle, with the exporter's libraries loaded before.

    ``added_rss_bytes`` is the peak over what was resident before, ``over_dense_table`` its ratio to the bytes of the
    dense float32 embeddings.
    """
    added = done.memory["peak"] - began.memory["resident"]
    return {
        "seconds": round(done.seconds - began.seconds, 2),
        "added_rss_bytes": added,
        "dense_table_bytes": dense_table_bytes,
        "over_dense_table": round(added / dense_table_bytes, 2),
    }


def table_lines(exported: Sequence[Exported]) -> list[str]:
    """A short table of bundles, a line each."""
    head = ("bundle", "bytes", "model.pte", "vocabulary", "manifest", "test AUC", "eager")
    lines = ["{:>12} {:>9} {:>10} {:>11} {:>9} {:>9} {:>7}".format(*head)]
    for each in exported:
        sizes = each.bundle.file_bytes()
        auc = each.parity.get("test_auc_pte")
        eager = each.parity.get("test_auc_eager")
        lines.append(
            f"{each.bundle.path.name:>12} {each.bundle.total_bytes:>9,} {sizes[PROGRAM]:>10,} "
            f"{sizes[VOCABULARY]:>11,} {sizes[MANIFEST]:>9,} "
            f"{'-' if auc is None else format(auc, '.4f'):>9} {'-' if eager is None else format(eager, '.4f'):>7}"
        )
    return lines


def part_lines(exported: Exported) -> list[str]:
    """What a bundle's bytes hold, largest first; then what its keys take, and what making it took."""
    parts = sorted(exported.byte_parts().items(), key=lambda part: -part[1])
    lines = [f"{name:>16} {size:>9,}" for name, size in parts]
    sizes, keys = exported.bundle.file_bytes(), exported.bundle.vocabulary.num_keys()
    if keys:
        lines.append(
            f"{keys:,} keys: {sizes[VOCABULARY] / keys:.2f} bytes of vocabulary and "
            f"{exported.bundle.total_bytes / keys:.2f} bytes of bundle each; the vocabulary is "
            f"{sizes[VOCABULARY] / exported.bundle.total_bytes:.0%} of the bundle"
        )
    cost = exported.cost
    if cost:
        lines.append(
            f"made in {cost['seconds']:.1f} s with {cost['added_rss_bytes'] / 1e6:.0f} MB, "
            f"{cost['over_dense_table']:.1f}× the dense fp32 embeddings"
        )
    return lines
