"""What else a compact model's values, layers and keys could be stored as: bytes, and validation AUC where it changes.

python benchmarks/storage.py runs/NAME [--label 36000] [--json FILE]

All is measured on one trained model, which is not trained again: scales of integer values, columns of cells, linear
layers, and keys as lists or fingerprints.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.bundle.estimate import linear_bytes
from ondevice.bundle.rows import RowOrder, order_rows
from ondevice.bundle.vocabulary_file import FieldKeys, text_of, vocabulary_bytes
from ondevice.data import Dataset
from ondevice.errors import UserError, run_script
from ondevice.files import atomic_json
from ondevice.forms.base import Form, RowLayout
from ondevice.forms.blocks import choose_blocks, columns_bytes
from ondevice.forms.packed import CLIPPINGS
from ondevice.models import BaseModel
from ondevice.program.pack import compacted_model
from ondevice.recommender import Recommender
from ondevice.training.batches import Batches
from ondevice.training.fit import evaluate

BLOCK_ROWS = 32
SCALE_BYTES = 4
FINGERPRINT_BITS = (4, 6, 8, 12, 16)

Score = Callable[[Recommender], float]
Row = dict[str, Any]


def storage(
    recommender: Recommender, dataset: Dataset, dense_dim: int, say: Callable[[str], None]
) -> dict[str, list[Row]]:
    """Every alternative, as rows with ``what``, ``bytes`` and, where it changes, ``valid_auc``.

    Args:
        recommender: a compact model in evaluation mode.
        dataset: what it was trained on; the validation split alone is read.
        dense_dim: dimension of the dense model's embeddings.
        say: told what is measured next.

    Raises: UserError: when the model keeps positions or shares rows, which are stored otherwise.
    """
    form = recommender.forms()[0]
    if form.layout_name != "staircase" or form.is_shipped_as_selected:
        raise UserError("storage is compared for models that keep leading dimensions of rows of their own")
    valid = Batches(dataset.valid, 4096, recommender.bias.device)

    def score(model: Recommender) -> float:
        return evaluate(model, valid)["auc"]

    forms, layout = recommender.forms(), form.layout(recommender.info)
    texts = dataset.vocabulary.key_texts()

    def ordered(bits: int | None = None) -> RowOrder:
        return order_rows(recommender.info.field_offsets, forms, texts, layout, bits)

    order = ordered()
    result: dict[str, list[Row]] = {}
    if not recommender.embedding.learns_codes:
        say("scales")
        result["scales"] = scale_rows(recommender, order, score)
        say("columns")
        result["columns"] = column_rows(recommender, texts)
    say("layers")
    result["layers"] = layer_rows(recommender.model, form, recommender.info.field_offsets, dense_dim)
    say("keys")
    result["keys"] = key_rows(recommender, order, ordered, score)
    return result


def scale_rows(recommender: Recommender, order: RowOrder, score: Score) -> list[Row]:
    """Values rounded to 8 and 4 bits, with a scale for each of several groups of them."""
    table = recommender.embedding
    values, kept = table.table().cpu(), table.num_kept()
    num_rows, dim = values.shape
    place = torch.empty(num_rows, dtype=torch.int64).fill_(order.num_rows)
    place[torch.from_numpy(order.ids)] = torch.arange(order.num_rows)
    column = torch.arange(dim).expand(num_rows, dim)
    row = torch.arange(num_rows)[:, None].expand(num_rows, dim)
    field = recommender.info.field_of()[:, None].expand(num_rows, dim)
    groups = {
        "the table": torch.zeros_like(column),
        "each dimension (what ships)": column,
        "each field": field,
        "each field and dimension": field * dim + column,
        f"each block of {BLOCK_ROWS} rows of a dimension": place[row] // BLOCK_ROWS * dim + column,
        "each row": row,
    }
    rows: list[Row] = [{"what": "float32", "bytes": 4 * kept, "valid_auc": score(recommender)}]
    mask = torch.as_tensor(recommender.forms()[0].mask()[:, :dim])
    for bits in (8, 4):
        for name, group in groups.items():
            rounded, scales = rounded_by_group(values, mask, group, bits)
            changed = copy.deepcopy(recommender)
            with torch.no_grad():
                changed.embedding.weight.copy_(rounded)
            rows.append(
                {
                    "what": f"{bits} bits, a scale for {name}",
                    "bytes": -(-kept * bits // 8) + SCALE_BYTES * scales,
                    "valid_auc": score(changed),
                }
            )
    return rows


def rounded_by_group(values: Tensor, kept: Tensor, group: Tensor, bits: int) -> tuple[Tensor, int]:
    """Values on symmetric grids of 2^bits − 1 integers, and the number of scales.

    Of the scales that map a group's largest magnitude, times one of `CLIPPINGS`, to the end of the grid, each group has
    the one with the least squared error.

    Shape: values, kept (bool) and group (int64) (N, D) -> (N, D).
    """
    end = (1 << bits - 1) - 1
    levels, inverse = group[kept].unique(return_inverse=True)
    flat = values[kept]
    largest = torch.zeros(len(levels)).scatter_reduce(0, inverse, flat.abs(), "amax")
    best, least = torch.zeros_like(flat), torch.full((len(levels),), torch.inf)
    for clipping in CLIPPINGS:
        scale = (largest * clipping / end).clamp(min=torch.finfo(torch.float32).tiny)[inverse]
        candidate = (flat / scale).round().clamp(-end, end) * scale
        error = torch.zeros(len(levels)).scatter_add(0, inverse, (candidate - flat).square())
        best = torch.where((error < least)[inverse], candidate, best)
        least = torch.minimum(least, error)
    result = torch.zeros_like(values)
    result[kept] = best
    return result, len(levels)


def column_rows(recommender: Recommender, texts: Sequence[str | None]) -> list[Row]:
    """Cells of every width: the values that columns of them store, what columns cost, and keys with their classes."""
    info, forms = recommender.info, recommender.forms()
    sizes = forms[0].row_sizes().numpy()
    chosen, rows = choose_blocks(sizes, info.num_fields), []
    for width in range(1, int(sizes.max(initial=1)) + 1):
        blocks = choose_blocks(sizes, info.num_fields, width=width)
        order = order_rows(info.field_offsets, forms, texts, RowLayout(blocks.classes(sizes)))
        columns = columns_bytes(blocks, ("forward",))
        stored, keys = blocks.num_values(sizes), vocabulary_bytes(order.field_keys)
        ships = " (what ships)" if width == chosen.width else ""
        rows.append(
            {
                "what": f"cells of {width}: {blocks.num_columns} columns, {len(blocks.limits)} size classes{ships}",
                "values": stored,
                "columns": columns,
                "keys": keys,
                "bytes": stored + columns + keys,
            }
        )
    return rows


def layer_rows(model: BaseModel, form: Form, field_offsets: Tensor, dense_dim: int) -> list[Row]:
    """Linear layers at 32, 8 and 4 bits, with more or fewer input columns of the first."""
    whole = model.compacted([model.embedding_dim] * model.num_fields)
    shipped = compacted_model(model, form, field_offsets)
    flat = model.num_fields * model.embedding_dim
    rows = []
    for what, each, wide in (
        ("columns of all dimensions of the dense tables", whole, model.num_fields * dense_dim),
        ("columns of dimensions that some row keeps", whole, flat),
        (
            "columns of dimensions that a row of their field keeps, where that pays (what ships)",
            shipped,
            flat,
        ),
    ):
        linears = [module for module in each.modules() if isinstance(module, nn.Linear)]
        inputs = {id(layer.linear) for layer in each.input_layers() if layer.fields is not None}
        shapes = [
            (wide if id(m) in inputs and m.in_features == flat else m.in_features, m.out_features)
            for m in linears
        ]
        for bits in (32, 8, 4) if shapes else ():
            size = sum(linear_bytes(i, o, bits if o > 1 else max(bits, 8)) for i, o in shapes)
            rows.append({"what": f"{bits} bits, {what}", "columns": shapes[0][0], "bytes": size})
    return rows


def key_rows(
    recommender: Recommender, order: RowOrder, ordered: Callable[[int], RowOrder], score: Score
) -> list[Row]:
    """Keys as lists, and as fingerprints with the unknown keys that these take for stored ones.

    Args:
        recommender: the compact model.
        order: of its rows, with keys as they are.
        ordered: the order with fingerprints of some bits.
        score: validation AUC of a model.
    """
    alone = [FieldKeys(field.unknown_row, (group,)) for field in order.field_keys for group in field.groups]
    texts = [text_of(g.form, k) for field in order.field_keys for g in field.groups for k in g.keys]
    exact = {"keys": len(texts), "false_matches": 0.0, "valid_auc": score(recommender)}
    lists = {
        "texts, one a line": sum(len(text.encode()) + 1 for text in texts),
        "a sorted list for each size class": vocabulary_bytes(alone),
        "a sorted list for each field, classes as subsets": vocabulary_bytes(order.field_keys),
    }
    rows: list[Row] = [{"what": what, "bytes": size, **exact} for what, size in lists.items()]
    every = torch.arange(recommender.info.num_embeddings)
    for bits in FINGERPRINT_BITS:
        other = ordered(bits)
        unstored = np.isin(order.field_of_ids, list(other.fingerprints)) & ~np.isin(every.numpy(), other.ids)
        unstored[order.field_offsets[:-1]] = False
        read = other.read_ids(every)
        changed = copy.deepcopy(recommender)
        changed.map_ids(recommender.id_map[read])
        rows.append(
            {
                "what": f"fingerprints of {bits} bits in {len(other.fingerprints)} of {order.num_fields} fields",
                "bytes": vocabulary_bytes(other.field_keys),
                "keys": len(texts),
                "false_matches": float((read != every).numpy()[unstored].mean()) if unstored.any() else None,
                "valid_auc": score(changed),
            }
        )
    return rows


def markdown(table_rows: dict[str, list[Row]]) -> str:
    """The rows as Markdown tables."""
    titles = {
        "scales": "Scales of integer values",
        "columns": "Columns of cells, an int8 value a byte",
        "layers": "Linear layers",
        "keys": "Keys",
    }
    lines = []
    for part, rows in table_rows.items():
        if not rows:
            continue
        columns = [key for key in rows[0] if key != "what"]
        lines += [f"**{titles[part]}**", "", "| | " + " | ".join(c.replace("_", " ") for c in columns) + " |"]
        lines.append("|---|" + "--:|" * len(columns))
        for row in rows:
            lines.append(f"| {row['what']} | " + " | ".join(_cell(c, row[c]) for c in columns) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return ""
    if column == "valid_auc":
        return f"{value:.4f}"
    return f"{value:.2%}" if column == "false_matches" else f"{value:,}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run directory that train/run.py wrote")
    parser.add_argument("--label", help="one compact model of the run (default: the largest)")
    parser.add_argument("--json", help="where to write the rows")
    arguments = parser.parse_args()

    from ondevice.run.directory import Run

    run = Run(arguments.run)
    labels = run.budgets()
    if not labels:
        raise UserError(f"{run.path}: no compact model yet; continue the training with --resume")
    recommender = run.compact(arguments.label or labels[0])

    dim = run.config.embedding.dim
    rows = storage(
        recommender, run.dataset(), dim, lambda what: print(f"measuring {what} …", file=sys.stderr)
    )
    print(markdown(rows))
    if arguments.json:
        atomic_json(arguments.json, rows)
    return 0


if __name__ == "__main__":
    run_script(main)
