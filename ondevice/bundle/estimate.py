"""How many bytes a bundle will take, before anything is exported: for budgets in bytes.

Tables, vocabulary, linear layers and the catalog are counted exactly. The rest of a program, its graphs, is
constants for what is in it, measured on finished programs (`export/to_pte.py` prints the parts), and so is the
manifest beside its schema and golden cases. `tests/bundle/test_estimate.py` compares all of it with exports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ondevice.bundle.catalog import CatalogRows, catalog_items
from ondevice.bundle.manifest import compact_schema, dump
from ondevice.bundle.rows import RowOrder, order_rows
from ondevice.bundle.vocabulary_file import vocabulary_bytes
from ondevice.config.sections import ENDPOINTS
from ondevice.data import Dataset, Schema
from ondevice.data.slots import Slots
from ondevice.data.value_names import value_names
from ondevice.errors import BudgetTooSmall, ConfigError, UserError
from ondevice.forms.base import Form
from ondevice.forms.table import table_info
from ondevice.models import BaseModel

# Bytes of a program's graphs by the endpoints in it: forward, whose scoring part is in every program; what rank adds to
# it; what recommend adds to both, with one item field, and with each further one.
ENDPOINT_BYTES = {"forward": 3_290, "rank": 950, "recommend": 1_640}
CATALOG_FIELD_BYTES, CATALOG_BAG_BYTES = 520, 250  # of one value, of several
# Where there is a history, rank and recommend read first-order weights of each side by itself, and forward has a part
# of its own that scores, but for what a program has once.
HISTORY_FIRST_ORDER_BYTES, HISTORY_ONCE_BYTES = {"forward": 0, "rank": 350, "recommend": 400}, 1_200
LINEAR_BYTES, FIRST_LINEAR_BYTES = 600, 90
FIRST_ORDER_BYTES = {"forward": 440, "rank": 150, "recommend": 10}
PROJECTION_BYTES, PROJECTION_SHARED = 100, 160  # at least; its weights less what they share with the graphs
POOLING_BYTES = {"forward": 1_950, "rank": 150, "recommend": 600}
POOLING_KIND_BYTES = 550  # for each further kind of pooling
POOLING_CELL_BYTES = 5  # for each field and slot: the matrix that says which belong together
# The manifest: what every one says, and each method; it lists the operators and sizes.
MANIFEST_BYTES = 1_000
MANIFEST_ENDPOINT_BYTES = {"forward": 160, "rank": 280, "recommend": 340}


def shipped_endpoints(given: Sequence[str] | None, dataset: Dataset) -> tuple[str, ...]:
    """The endpoints of a program: those given, or all that the schema and its catalog allow.

    Raises: UserError: when the data cannot serve one of those given.
    """
    allowed = default_endpoints(dataset)
    if given is None:
        return allowed
    for name in given:
        if name not in allowed:
            raise ConfigError(
                f"compact.endpoints: got '{name}', but {dataset.schema.name} allows {', '.join(allowed)} alone: rank "
                "needs fields of both sides, recommend a catalog too; leave it out"
            )
    return tuple(name for name in ENDPOINTS if name in given)


def named_fields(schema: Schema, endpoints: Sequence[str]) -> list[int]:
    """The fields whose keys a bundle with these endpoints has to name: the item's, for ``recommend``."""
    if "recommend" not in endpoints or schema.item_key is None:
        return []
    return [schema.names.index(schema.item_key)]


def default_endpoints(dataset: Dataset) -> tuple[str, ...]:
    """The endpoints that the schema and its catalog allow."""
    if not (dataset.schema.context_fields and dataset.schema.item_fields):
        return ("forward",)
    return ENDPOINTS if dataset.catalog is not None else ("forward", "rank")


def bundle_bytes(
    forms: Sequence[Form],
    model: BaseModel,
    dataset: Dataset,
    endpoints: Sequence[str],
    projected: bool = False,
    fingerprint_bits: int | None = None,
) -> int:
    """Estimated bytes of the bundle of a model under these forms.

    Args:
        forms: of the embedding table, then of the first-order one.
        model: the base model, at the width of the forms.
        dataset: its vocabulary and catalog are shipped.
        endpoints: of the program.
        projected: whether first-order weights are projections of the embeddings.
        fingerprint_bits: as in `order_rows`.
    """
    slots = dataset.schema.slots
    info = table_info(dataset.vocabulary.field_offsets, dataset.counts, slots=slots)
    texts, named = dataset.vocabulary.key_texts(), named_fields(dataset.schema, endpoints)
    layout = forms[0].layout(info)
    order = order_rows(info.field_offsets, forms, texts, layout, fingerprint_bits, named)
    counted = counted_endpoints(model, dataset.schema, endpoints)
    stored, graphs = forms[0].estimate(info.num_fields, counted), 0
    if projected:
        weights = 4 * model.num_fields * model.embedding_dim
        graphs += max(PROJECTION_BYTES, weights - PROJECTION_SHARED)
    if order.first_order_rows:
        graphs += order.first_order_rows + 1 + sum(FIRST_ORDER_BYTES[name] for name in counted)
        if dataset.schema.histories:
            graphs += sum(HISTORY_FIRST_ORDER_BYTES[name] for name in endpoints)
    if "recommend" in endpoints:
        graphs += _catalog_bytes(dataset, order)
    return stored + graphs + vocabulary_bytes(order.field_keys) + fixed_bytes(model, dataset, endpoints)


def _catalog_bytes(dataset: Dataset, order: RowOrder) -> int:
    """Bytes of the items that recommend can return."""
    rows = catalog_items(dataset, order).rows
    widths = [dataset.schema.fields[field].slots for field in dataset.schema.item_fields]
    return CatalogRows(rows, widths).stored_bytes() if len(rows) else 0


def counted_endpoints(model: BaseModel, schema: Schema, endpoints: Sequence[str]) -> list[str]:
    """The endpoints whose graphs a program holds: the scoring part of forward whatever there is, and twice where there
    is a history, which rank and recommend read otherwise where it is pooled.
    """
    if "forward" not in endpoints:
        return ["forward", *endpoints]
    twice = bool(schema.histories) and not model.reads_histories and len(endpoints) > 1
    return [*endpoints, "forward"] if twice else list(endpoints)


def fixed_bytes(model: BaseModel, dataset: Dataset, endpoints: Sequence[str]) -> int:
    """Bytes of a bundle beside its tables, catalog and vocabulary: graphs, linear layers and manifest."""
    shipped = model.compacted([model.embedding_dim] * model.num_fields)
    linears = [module for module in shipped.modules() if isinstance(module, nn.Linear)]
    weights = linears_bytes(linears, model.linear_bits)
    counted = counted_endpoints(model, dataset.schema, endpoints)
    graphs = sum(ENDPOINT_BYTES[name] for name in counted)
    slots = dataset.schema.slots
    graphs += pooling_bytes(slots.part(slots.apart()[0]) if model.reads_histories else slots, counted)
    if "recommend" in endpoints:
        widths = [dataset.schema.fields[field].slots for field in dataset.schema.item_fields]
        graphs += sum(CATALOG_FIELD_BYTES if width == 1 else CATALOG_BAG_BYTES for width in widths)
        graphs -= CATALOG_FIELD_BYTES
    if counted.count("forward") > 1:
        graphs -= HISTORY_ONCE_BYTES
    graphs += (
        4 * (model.num_fields + 2) * model.embedding_dim
    )  # scales of the dimensions, once for each field
    scoring = LINEAR_BYTES * len(linears) + (FIRST_LINEAR_BYTES if linears else 0)
    scoring += sum(getattr(module, "graph_bytes", 0) for module in shipped.modules())
    graphs += scoring * counted.count("forward")
    return weights + graphs + manifest_bytes(dataset, endpoints)


def pooling_bytes(slots: Slots, endpoints: Sequence[str]) -> int:
    """Bytes of the step that makes one embedding a field of those of its slots; 0 where each field has one."""
    if slots.is_plain:
        return 0
    kinds = len({pooling for pooling in slots.poolings if pooling is not None})
    constants = POOLING_CELL_BYTES * len(slots.widths) * slots.total + POOLING_KIND_BYTES * (kinds - 1)
    return constants + sum(POOLING_BYTES[name] for name in endpoints)


def manifest_bytes(dataset: Dataset, endpoints: Sequence[str]) -> int:
    """Estimated bytes of manifest.json, whose golden cases are taken to be as long as two rows of validation."""
    golden = dataset.raw_rows("valid", list(range(min(2, len(dataset.valid)))))
    ids = 2 * (1 + len(str(dataset.vocabulary.num_embeddings))) * dataset.schema.slots.total
    described = len(dump(compact_schema(dataset.schema)).encode()) + len(dump(golden).encode()) + ids
    names = value_names(dataset.schema) if dataset.catalog is not None else {}
    described += len(dump({"labels": names}).encode()) if names else 0
    return MANIFEST_BYTES + described + sum(MANIFEST_ENDPOINT_BYTES[name] for name in endpoints)


def linear_bytes(in_features: int, out_features: int, bits: int, bias: bool = True) -> int:
    """Bytes of a linear layer as XNNPACK stores it: rows of whole bytes, and a scale each when they are integers."""
    scales = 0 if bits == 32 else 4
    return out_features * (-(-in_features * bits // 8) + scales + 4 * bias)


def linears_bytes(linears: Sequence[nn.Linear], bits: int) -> int:
    """Bytes of a model's linear layers in so many bits; one of a single output has 8."""
    return sum(
        linear_bytes(m.in_features, m.out_features, bits if m.out_features > 1 else 8, m.bias is not None)
        for m in linears
    )


def largest_target(
    budget: int,
    limit: int,
    forms_at: Callable[[int], Sequence[Form]],
    bytes_of: Callable[[Sequence[Form]], int],
) -> int:
    """The most kept values whose bundle is estimated to fit ``budget`` bytes.

    Args:
        budget: bytes of the whole bundle.
        limit: values of the full tables.
        forms_at: the final forms at a number of values.
        bytes_of: the estimated bytes of the bundle under some forms.

    Raises: UserError: when even the smallest tables do not fit.
    """

    def needed(target: int) -> int:
        """Bytes; 0 where the values are too few for any table, so that more are tried."""
        try:
            forms = forms_at(target)
        except UserError:
            return 0
        return bytes_of(forms)

    if needed(limit) <= budget:
        return limit
    low, high = 0, limit
    while high - low > max(1, low // 500):
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= budget else (low, middle)
    if not needed(low):
        raise BudgetTooSmall(
            f"budget {budget:,} bytes: the program, its linear layers, the manifest and the smallest tables take about "
            f"{needed(high):,}; allow more, leave out some of compact.endpoints, or train with a narrower model.hidden "
            "or none (compact.model={name: fm})"
        )
    return low
