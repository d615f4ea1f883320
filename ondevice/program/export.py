"""From a trained model to a bundle in memory; `export_run` makes those of a run directory."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from torch import nn

from ondevice import memory
from ondevice.bundle.catalog import catalog_items
from ondevice.bundle.estimate import default_endpoints, linear_bytes, named_fields
from ondevice.bundle.fingerprints import MAX_BITS
from ondevice.bundle.manifest import PROGRAM
from ondevice.data import Dataset
from ondevice.errors import ConfigError
from ondevice.program.bundle import Bundle, make_bundle
from ondevice.program.endpoints import MAX_BATCH, TOP_K, Endpoint, Recommend, make_endpoints
from ondevice.program.pack import PackedRecommender, pack
from ondevice.program.parity import parity
from ondevice.program.quantize import is_float_linear, quantize
from ondevice.program.targets import shipped
from ondevice.recommender import Recommender
from ondevice.version import __version__

# Largest difference of a score between the quantized model in PyTorch and its program. XNNPACK may round an
# activation the other way, one step of 255; a wrong table or operator is off by far more.
PROGRAM_TOLERANCE = 0.02
PACKING_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ExportOptions:
    """How a model is exported."""

    layout: str = "staircase"
    """staircase (sizes) or csr (positions)."""
    quantization: str = "int8"
    """int8 or none (float32)."""
    methods: tuple[str, ...] | None = None
    """Some of forward, rank, recommend; None for what the run's ``compact.endpoints`` says, or all that the schema and
    its catalog allow."""
    catalog: bool = False
    """Whether to write catalog.bin, titles and raw values of all items."""
    top_k: int = TOP_K
    """Items that recommend returns."""
    max_batch: int = MAX_BATCH
    """Most rows of forward, and items of rank, in one call."""
    fingerprint_bits: int | None = None
    """As in ``compact.store.fingerprint_bits``; 0 for keys as they are, None for what the run says."""

    def __post_init__(self) -> None:
        if self.methods is not None and set(self.methods) == {"recommend"}:
            raise ConfigError(
                "methods: got recommend alone, but a bundle is proven by scores of rows; add forward or rank"
            )
        bits = self.fingerprint_bits
        if bits is not None and not 0 <= bits <= MAX_BITS:
            raise ConfigError(
                f"fingerprint bits: got {bits}; allowed are 1 to {MAX_BITS}, or 0 for keys as they are"
            )


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
        shortfall: why the bundle leaves a part of its budget, or takes more, where it does.
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
    shortfall: str | None = None

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

    Raises: ConfigError: when the model cannot be exported so.
    """
    packed = pack_for(recommender, dataset, options)
    return export_packed(recommender, packed, dataset, name, model, method, metrics or {}, options, check)


def pack_for(recommender: Recommender, dataset: Dataset, options: ExportOptions) -> PackedRecommender:
    """What is exported under these options, packed."""
    names = options.methods or default_endpoints(dataset)
    named = named_fields(dataset.schema, [*names, "recommend"] if options.catalog else names)
    texts = dataset.vocabulary.key_texts()
    return pack(recommender, options.layout, texts, options.fingerprint_bits or None, named)


def export_packed(
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
    """`export_model` of a model that is packed already."""
    schema, order = dataset.schema, packed.order
    quantized = quantize(packed, options.quantization)
    names = options.methods or default_endpoints(dataset)
    hashes_items = schema.item_key is not None and order.is_hashed(schema.names.index(schema.item_key))
    if hashes_items:
        if options.catalog or "recommend" in (options.methods or ()):
            raise ConfigError(
                f"'{schema.item_key}' is hashed, so a bundle does not know which items there are; export with "
                "--methods forward,rank and without --catalog"
            )
        names = tuple(name for name in names if name != "recommend")
    items = catalog_items(dataset, order) if dataset.catalog is not None and not hashes_items else None
    if options.catalog and items is None:
        raise ConfigError("--catalog: this data set names no items, so there is no catalog to write")
    endpoints = make_endpoints(
        quantized,
        names,
        context_columns=schema.context_columns,
        item_columns=schema.item_columns,
        catalog=None if items is None else items.rows,
        catalog_widths=[schema.fields[field].slots for field in schema.item_fields],
        max_batch=options.max_batch,
        top_k=options.top_k,
    )
    lowered = shipped().lower(endpoints)
    manifest: dict[str, Any] = {
        "name": name,
        "model": model,
        "method": method,
        "layout": options.layout,
        "num_rows": order.num_rows,
        "sizes": _sizes(packed),
        "methods": {key: value.signature for key, value in endpoints.items()},
        "ops": list(lowered.ops),
        "backends": list(lowered.backends),
        "versions": versions(),
        "metrics": metrics,
    }
    if items is not None and ("recommend" in endpoints or options.catalog):
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
        catalog_bytes=_catalog_bytes(endpoints),
        done=Reading.now(),
    )
    if check:
        result.measure_parity(dataset)
    return result


def _catalog_bytes(endpoints: dict[str, Endpoint]) -> int:
    recommend = endpoints.get("recommend")
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
    return {**packed.table.describe(), "first_order_rows": packed.order.first_order_rows}


def versions() -> dict[str, str]:
    """Versions of what made the program."""
    installed = {name: version(name).split("+")[0] for name in ("torch", "torchao", "executorch")}
    return {"ondevice": __version__, **installed}


def golden_rows(dataset: Dataset) -> list[dict[str, Any]]:
    """A real row of the test split, and one half of whose values are unknown."""
    count = min(2, len(dataset.test))
    rows = dataset.raw_rows("test", list(range(count)))
    rows = rows if count == 2 else rows * 2
    half = {name: None if place % 2 else value for place, (name, value) in enumerate(rows[1].items())}
    return [rows[0], half]
