"""From a run of the next item to a bundle, compared with the model that it was made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ondevice.bundle.catalog import catalog_items
from ondevice.bundle.manifest import COST, PROGRAM, check_replaceable
from ondevice.data import Dataset
from ondevice.data.gaps import history_buckets
from ondevice.data.schema import Schema
from ondevice.data.sources import say
from ondevice.errors import ConfigError
from ondevice.files import atomic_json
from ondevice.models.sequences.places import gaps_of, items_of
from ondevice.next_item import NextItemRecommender
from ondevice.program.attribute_values import attribute_values, stored_vectors
from ondevice.program.bundle import Bundle, make_bundle
from ondevice.program.endpoints import TOP_K
from ondevice.program.export import (
    PACKING_TOLERANCE,
    versions,
)
from ondevice.program.golden import Moment
from ondevice.program.new_items import write_attributes
from ondevice.program.next_item import PackedNextItem, make_endpoints, pack
from ondevice.program.quantize import QUANTIZATIONS, quantize, sqnr_db
from ondevice.program.targets import shipped
from ondevice.run.directory import Run
from ondevice.run.next_item import load_run
from ondevice.training.next_item import rank_next
from ondevice.training.ranking import rank_all, summary
from ondevice.training.windows import Log, Moments

FOLDERS = {"int8": "int8", "none": "fp32"}
"""Where a bundle of each quantization goes, below ``bundles`` of the run."""
# Differences of scores between the quantized model in PyTorch and its program, in standard deviations of the scores.
# XNNPACK may round an activation the other way, one step of 255, which moves all scores of a history: over 64 histories
# of each of nine models in 4 bits the root of the mean square was 0.0004 to 0.0045, the largest difference 0.009 to
# 0.042. A wrong table or operator moves all scores by far more.
GOLDEN_TOLERANCE = 0.02  # of a golden case on another processor
BEST_TOLERANCE = 0.05  # of what is recommended
RMS_TOLERANCE = 0.008  # of all scores
FLIP_TOLERANCE = 0.08  # of any
SAMPLE = 64  # histories over which links are compared, all items each
LENGTHS = (0, 1, 49, 50, 400)
"""Of histories that the bundle is asked with, as far as a user has as many."""
NOW = 978_307_200
"""When golden cases ask: any second does."""


@dataclass
class ExportedNextItem:
    """A bundle with the models it was made of.

    Args:
        recommender: the eager model.
        packed: with float values, in program order.
        quantized: what was lowered.
        bundle: the result.
        num_delegated: operators inside delegates.
        num_portable: operators outside.
        parity: what `parity` measured; empty when it was not.
    """

    recommender: NextItemRecommender
    packed: PackedNextItem
    quantized: PackedNextItem
    bundle: Bundle
    num_delegated: int
    num_portable: int
    parity: dict[str, Any] = field(default_factory=dict)


def export_next_item(
    path: str | Path,
    *,
    label: str | None = None,
    quantization: str = "int8",
    catalog: bool = False,
    top_k: int = TOP_K,
    output: str | Path | None = None,
    check: bool = True,
    data: Mapping[str, Any] | None = None,
) -> ExportedNextItem:
    """Export the model of a run of the next item.

    Args:
        path: the run directory.
        label: of a compact model; None for the dense one.
        quantization: int8 or none (float32).
        catalog: whether to write catalog.bin, titles and raw values of all items.
        top_k: items that ``recommend`` returns.
        output: where to write; by default ``bundles/int8`` or ``bundles/fp32`` in the run directory, and for a compact
            model ``bundles/<label>``.
        check: compare eager model and program over the whole test split; left out, and said so, where the data
            cannot be found.
        data: options that say where the data are now.

    Raises: UserError: when the run is none of the next item, or the place is taken.
    """
    if quantization not in QUANTIZATIONS:
        raise ConfigError(f"--quantize: got {quantization}; use {' or '.join(QUANTIZATIONS)}")
    run = Run(path, data)
    recommender, dataset = load_run(run, label)
    folder = FOLDERS[quantization] if label is None else label
    place = Path(output) if output is not None else run.path / "bundles" / folder
    check_replaceable(place)  # before the seconds that exporting takes
    model, method = run.config.model.name, "uniform"
    if label is not None:
        model, method = run.config.compact_model.name, run.config.compact.sizes.name
    name = f"{dataset.schema.name}-{model}-{folder}"
    entry = run.metrics["dense"] if label is None else run.metrics["budgets"][label]
    metrics = {
        f"{split}_ndcg@10": round(entry[split]["all"]["ndcg@10"], 5)
        for split in ("valid", "test")
        if split in entry
    }
    made = export_model(recommender, dataset, name, model, metrics, quantization, catalog, top_k, method)
    if check and dataset.excerpt:
        say(
            f"{run.path}: the data are not where they were, so the program is not compared over the test split; "
            "say where they are now with data.path=…"
        )
    elif check:
        made.parity = parity(made, Log.of(dataset))
        _check_parity(made.parity)
    made.bundle = made.bundle.write(place)
    attributes = attribute_values(run, made.quantized)
    if attributes is not None:
        fields, values = attributes
        write_attributes(place, made.bundle.contents[PROGRAM], stored_vectors(made.quantized), values, fields)
    if made.parity:
        atomic_json(place / COST, {"parity": made.parity})
    return made


def export_model(
    recommender: NextItemRecommender,
    dataset: Dataset,
    name: str,
    model: str,
    metrics: dict[str, Any],
    quantization: str = "int8",
    catalog: bool = False,
    top_k: int = TOP_K,
    method: str = "uniform",
) -> ExportedNextItem:
    """The bundle, in memory, of a trained model.

    Args:
        recommender: in evaluation mode.
        dataset: vocabulary, catalog, and test rows for golden cases.
        name: name of the bundle.
        model: name of the sequence model.
        metrics: what the manifest says of the training.
        quantization: int8 or none.
        catalog: whether to write catalog.bin.
        top_k: items that ``recommend`` returns.
        method: what chose the sizes of its rows.
    """
    schema = dataset.schema
    others = [each.name for each in schema.fields if each.name != schema.item_key and not each.is_history]
    if others or len(schema.histories) != 1 or schema.histories[0].slots != recommender.model.last:
        raise ConfigError(
            f"a program of the next item reads one history of its model's last {recommender.model.last} items and "
            f"the item, but schema '{schema.name}' has {', '.join(schema.names)}"
        )
    packed = pack(recommender, dataset)
    quantized = quantize(packed, quantization)
    endpoints = make_endpoints(quantized, top_k=top_k, max_batch=packed.num_rows)
    lowered = shipped().lower(endpoints)
    manifest: dict[str, Any] = {
        "name": name,
        "model": model,
        "method": method,
        "layout": packed.layout,
        "num_rows": packed.num_rows,
        "sizes": {**packed.table.describe(), "first_order_rows": packed.order.first_order_rows},
        "methods": {key: value.signature for key, value in endpoints.items()},
        "ops": list(lowered.ops),
        "backends": list(lowered.backends),
        "versions": versions(),
        "metrics": metrics,
        "catalog": {"key_field": schema.item_key, "num_items": packed.num_rows},
    }
    if quantization != "none":
        # Another processor rounds activations otherwise, and these scores are no probabilities.
        manifest["golden_tolerance"] = round(GOLDEN_TOLERANCE * _spread(quantized), 4)
    bundle = make_bundle(
        program=lowered.data,
        vocabulary=packed.order.field_keys,
        schema=schema,
        manifest=manifest,
        golden=golden_rows(dataset),
        moments=golden_moments(schema),
        catalog=catalog_items(dataset, packed.order).described if catalog else None,
    )
    return ExportedNextItem(
        recommender, packed, quantized, bundle, lowered.num_delegated, lowered.num_portable
    )


def _spread(packed: PackedNextItem) -> float:
    """Standard deviation of the scores of all items for nobody."""
    every = torch.arange(packed.num_rows).unsqueeze(1)
    with torch.no_grad():
        return float(packed(packed.nobody(), every).std(correction=0))


def golden_rows(dataset: Dataset) -> list[dict[str, Any]]:
    """Raw values of an empty history and of the end of a real one, each with an item: short, since all of it ships."""
    (row,) = dataset.raw_rows("test", [0])
    (history,) = (each.name for each in dataset.schema.histories)
    return [{**row, history: []}, {**row, history: (row[history] or [])[-3:]}]


def golden_moments(schema: Schema) -> list[Moment]:
    """When `golden_rows` were, where the schema has time gaps: days, minutes and seconds ago."""
    return [Moment((), NOW), Moment((NOW - 90_061, NOW - 75, NOW - 2), NOW)] if schema.num_gaps else []


def long_golden_moments(dataset: Dataset, lengths: Sequence[int] = LENGTHS) -> list[Moment]:
    """When the histories of `long_golden_rows` were, and the item that came next; none without time gaps."""
    log = Log.of(dataset)
    if log.times is None:
        return []
    longest = int(np.diff(log.offsets).argmax())
    times = log.times[log.offsets[longest] : log.offsets[longest + 1]].tolist()
    reached = sorted({min(length, len(times) - 1) for length in lengths})
    return [Moment(times[:n], times[n]) for n in reached]


def long_golden_rows(dataset: Dataset, lengths: Sequence[int] = LENGTHS) -> list[dict[str, Any]]:
    """Raw values of the first items of the longest log, as far as it goes, and of the item that came next.

    Args:
        dataset: whose log is there.
        lengths: of the histories.
    """
    schema, log = dataset.schema, Log.of(dataset)
    longest = int(np.diff(log.offsets).argmax())
    field = schema.names.index(schema.item_key or "")
    ids = log.items[log.offsets[longest] : log.offsets[longest + 1]] + dataset.vocabulary.field_offsets[field]
    keys = [dataset.vocabulary.raw_of(int(each)) for each in ids]
    reached = sorted({min(length, len(keys) - 1) for length in lengths})
    return [{schema.histories[0].name: keys[:n], str(schema.item_key): keys[n]} for n in reached]


def program_contexts(packed: PackedNextItem, histories: torch.Tensor) -> torch.Tensor:
    """What a program reads of histories as a training has them (B, L): rows and, where it has gaps, their buckets."""
    rows = program_histories(packed, items_of(histories))
    return torch.cat([rows, gaps_of(histories)], 1) if packed.model.reads_gaps else rows


def program_histories(packed: PackedNextItem, histories: torch.Tensor) -> torch.Tensor:
    """Program rows of histories of item ids (B, L), absent places after all rows."""
    row_of = torch.full((int(packed.order.ids.max()) + 2,), packed.num_rows)
    begin = int(packed.order.ids.min()) - 1
    row_of[torch.from_numpy(packed.order.ids) - begin] = torch.arange(packed.num_rows)
    return row_of[histories]


def parity(made: ExportedNextItem, log: Log) -> dict[str, Any]:
    """The differences from the eager model to the program, and NDCG@10 at both ends of the whole test split.

    Returns: ``eager_vs_packed`` and ``int8_vs_pte_max_abs`` (largest difference of a score), ``int8_vs_pte_rms``
        (root of the mean square of all), ``score_std``, ``packed_vs_int8_sqnr_db`` (None where nothing was rounded),
        ``lengths`` (of the histories that `check_recommended` asked with), ``nobody_vs_popularity`` (rank correlation
        of the scores after an empty history with how often training saw each item), and of both ends ``test_ndcg@10``
        and ``test_hr@10``.
    """
    recommender, packed, quantized = made.recommender, made.packed, made.quantized
    moments = Moments.of(log, "test", recommender.model.last)
    begin = int(packed.order.ids.min()) - 1
    places = torch.from_numpy(packed.order.ids - begin - 1)  # of each row among the known items
    chosen = [int(i) for i in np.linspace(0, len(moments) - 1, min(SAMPLE, len(moments)))]
    ids = moments.histories[chosen]
    rows, every = program_contexts(packed, ids), torch.arange(packed.num_rows).unsqueeze(1)
    with torch.no_grad():
        eager = recommender(ids)[:, places]
        exact = torch.stack([packed(row[None], every) for row in rows])
        rounded = torch.stack([quantized(row[None], every) for row in rows])
    program = made.bundle.program
    shipped_scores = np.stack([program("rank", row[None], every.numpy())[0] for row in rows.numpy()])
    differences = np.abs(rounded.numpy() - shipped_scores)
    whole = program_contexts(packed, moments.histories).numpy()

    def scores_of(begin: int, end: int) -> torch.Tensor:
        scores = torch.empty(end - begin, recommender.num_items)
        for place, row in enumerate(whole[begin:end]):
            scores[place, places] = torch.from_numpy(program("rank", row[None], every.numpy())[0])
        return scores

    last = summary(rank_all(scores_of, moments.targets, moments.seen, recommender.num_items))
    first = summary(rank_next(recommender, moments))
    nobody = program("rank", packed.nobody().numpy(), every.numpy())[0]
    return {
        "nobody_vs_popularity": rank_correlation(nobody, log.counts()[1:][places.numpy()]),
        "eager_vs_packed": float((eager - exact).abs().max()),
        "packed_vs_int8_sqnr_db": None if torch.equal(exact, rounded) else sqnr_db(exact, rounded),
        "int8_vs_pte_max_abs": float(differences.max()),
        "int8_vs_pte_rms": float(np.sqrt(np.square(differences, dtype=np.float64).mean())),
        "score_std": float(shipped_scores.std()),
        "lengths": check_recommended(made, log),
        **{f"test_{name}_eager": first[name] for name in ("ndcg@10", "hr@10")},
        **{f"test_{name}_pte": last[name] for name in ("ndcg@10", "hr@10")},
        "rows": len(moments),
    }


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation of two lists of numbers (n,); equal ones in the order in which they stand."""
    first, second = (np.argsort(np.argsort(each, kind="stable")) for each in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def check_recommended(made: ExportedNextItem, log: Log, k: int = 10) -> list[int]:
    """Ask the bundle with raw keys of what the longest log begins with, and compare with the model that was lowered.

    Returns: the lengths of these histories.

    Raises: RuntimeError: when others than the best are recommended, or one that was seen.
    """
    bundle, packed = made.bundle, made.quantized
    longest = int(np.diff(log.offsets).argmax())
    done = log.items[log.offsets[longest] : log.offsets[longest + 1]]
    items = torch.from_numpy(done[done != 0])
    times = (
        None if log.times is None else log.times[log.offsets[longest] : log.offsets[longest + 1]][done != 0]
    )
    every, asked = torch.arange(packed.num_rows).unsqueeze(1), []
    for length in sorted({min(length, len(items)) for length in LENGTHS}):
        rows = program_histories(packed, items[:length])
        width = made.recommender.model.last
        history = F.pad(rows[-width:], (width - len(rows[-width:]), 0), value=packed.num_rows)
        moment = Moment()
        if times is not None:
            moment = Moment(times[:length].tolist(), float(times[min(length, len(times) - 1)]))
            gaps = torch.from_numpy(history_buckets(times[:length], str(log.gaps), moment.now))[-width:]
            history = torch.cat([history, F.pad(gaps, (width - len(gaps), 0))])
        with torch.no_grad():
            scores = packed(history[None], every)
        near = BEST_TOLERANCE * float(scores.std())
        scores[rows] = -torch.inf
        best = scores.topk(min(k, len(scores))).values
        best = best[best > -torch.inf]
        keys = [bundle.item_keys[row] for row in rows]
        shown = bundle.recommend(history=keys, k=k, times=moment.times, now=moment.now)
        of_shown = scores[[bundle.item_places[str(each["item"])] for each in shown]]
        # items of one score may stand in any order, so it is scores that must be the best ones
        if len(shown) != len(best) or not torch.allclose(of_shown, best, rtol=0, atol=near):
            raise RuntimeError(
                f"the program recommends {shown} after {length} items; to the model they are worth "
                f"{of_shown.tolist()}, and the best {best.tolist()}"
            )
        asked.append(length)
    return asked


def _check_parity(measured: dict[str, Any]) -> None:
    limits = {
        "eager_vs_packed": PACKING_TOLERANCE,
        "int8_vs_pte_rms": RMS_TOLERANCE * measured["score_std"],
        "int8_vs_pte_max_abs": FLIP_TOLERANCE * measured["score_std"],
    }
    for link, limit in limits.items():
        if not measured[link] <= limit:
            raise RuntimeError(f"the exported program is wrong: {link} is {measured[link]}, above {limit}")
