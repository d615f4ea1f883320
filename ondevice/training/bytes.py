"""How many bytes a bundle will take, before anything is exported: for budgets in bytes.

Tables and vocabulary are counted exactly, linear layers as XNNPACK stores them; the rest of the program and the
manifest are constants, measured on finished bundles (`export/to_pte.py` prints the parts). The estimate errs on
the large side, so that what is trained for a budget fits it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ondevice.data import Dataset
from ondevice.embeddings import Codes, Form
from ondevice.embeddings.coded import NUM_CODES
from ondevice.errors import UserError
from ondevice.models import BaseModel
from ondevice.program.blocks import blocks_of
from ondevice.program.rows import order_rows
from ondevice.program.vocabulary_file import vocabulary_bytes

PROGRAM_BYTES = 12_300  # forward, rank and recommend of a model with three linears, without what is stored
CODEBOOK_BYTES = 600  # the lookup of codes in the program's graphs
LINEAR_BYTES = 450  # each further linear layer in the program's graphs
MANIFEST_BYTES = 2_700
CATALOG_ITEM_BYTES = 3.1  # per item that recommend can return


def bundle_bytes(forms: Sequence[Form], model: BaseModel, dataset: Dataset) -> int:
    """Estimated bytes of the bundle of a model under these forms.

    Args:
        forms: of the embedding table, then of the first-order one.
        model: the base model, at the width of the forms.
        dataset: its vocabulary and catalog are shipped.
    """
    offsets = dataset.vocabulary.field_offsets
    sizes = forms[0].row_sizes().numpy()
    blocks = blocks_of(forms[0], len(offsets) - 1)
    order = order_rows(offsets, forms, dataset.vocabulary.key_texts(), blocks.classes(sizes))
    stored = sum((height + 1) * blocks.width for height in blocks.heights(sizes))
    if isinstance(forms[0], Codes):
        stored = stored // blocks.width + CODEBOOK_BYTES + NUM_CODES * blocks.width
    items = 0
    if dataset.catalog is not None and dataset.schema.item_key is not None:
        place = dataset.schema.names.index(dataset.schema.item_key)
        items = int(((order.ids >= offsets[place]) & (order.ids < offsets[place + 1])).sum())
    return stored + order.first_order_rows + vocabulary_bytes(order.field_keys) + fixed_bytes(model, items)


def fixed_bytes(model: BaseModel, num_items: int) -> int:
    """Bytes of a bundle beside its tables and vocabulary: program, linear layers, catalog and manifest."""
    shipped = model.compacted([model.embedding_dim] * model.num_fields)
    linears = [module for module in shipped.modules() if isinstance(module, nn.Linear)]
    weights = sum(
        linear_bytes(m.in_features, m.out_features, model.linear_bits if m.out_features > 1 else 8)
        for m in linears
    )
    program = PROGRAM_BYTES + LINEAR_BYTES * max(0, len(linears) - 3) + int(CATALOG_ITEM_BYTES * num_items)
    return weights + program + MANIFEST_BYTES


def linear_bytes(in_features: int, out_features: int, bits: int, bias: bool = True) -> int:
    """Bytes of a linear layer as XNNPACK stores it: rows of whole bytes, and a scale each when they are integers."""
    scales = 0 if bits == 32 else 4
    return out_features * (-(-in_features * bits // 8) + scales + 4 * bias)


def largest_target(
    budget: int,
    limit: int,
    forms_at: Callable[[int], Sequence[Form]],
    model_of: Callable[[Sequence[Form]], BaseModel],
    dataset: Dataset,
) -> int:
    """The most kept values whose bundle is estimated to fit ``budget`` bytes.

    Args:
        budget: bytes of the whole bundle.
        limit: values of the full tables.
        forms_at: the final forms at a number of values.
        model_of: the base model at the width of some forms.
        dataset: what is shipped with it.

    Raises: UserError: when even the smallest tables do not fit.
    """

    def needed(target: int) -> int:
        """Bytes; 0 where the values are too few for any table, so that more are tried."""
        try:
            forms = forms_at(target)
        except UserError:
            return 0
        return bundle_bytes(forms, model_of(forms), dataset)

    if needed(limit) <= budget:
        return limit
    low, high = 0, limit
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= budget else (low, middle)
    if not needed(low):
        raise UserError(
            f"budget {budget:,} bytes: the program, its linear layers, the manifest and the smallest tables take about "
            f"{needed(high):,}; allow more, or make model.hidden narrower"
        )
    return low
