"""Whether the time between two items helps to say what comes next: the experiment that histories have no gaps for.

python benchmarks/time_gaps.py runs/NAME --json FILE [--gaps until since] [--epochs N] [data.key=value …]

The run, a finished one on MovieLens-1M, is trained again twice: each place of a history has a vector added for how long
it was *until* the next item (which a request knows, too: it is asked now) or *since* the item before, by the power of
two of its seconds. All else is the run's: model, schedule, seed, split.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor, nn

from ondevice import next_item
from ondevice.bench.report.report import environment
from ondevice.config.file import plain_options
from ondevice.data import Dataset, load_dataset
from ondevice.data.rows import read_rows
from ondevice.data.sets.movielens import SOURCE_1M
from ondevice.data.sets.movielens_files import WAY_OUT, movielens_table
from ondevice.data.sources import layout_of, obtain
from ondevice.errors import UserError, run_script
from ondevice.files import atomic_json
from ondevice.next_item import NextItemRecommender
from ondevice.run.directory import Run, data_options
from ondevice.run.next_item import is_next_item_run, item_info
from ondevice.training.next_item import NextItemFit, rank_next
from ondevice.training.progress import Progress
from ondevice.training.ranking import summary
from ondevice.training.softmax import softmax_loss
from ondevice.training.windows import Log, Moments, Windows

GAPS = ("until", "since")
NUM_BUCKETS = 30
"""None, and the powers of two of seconds up to 17 years."""


class WithGaps(NextItemRecommender):
    """A recommender that reads items and gaps, written as one number: item + (1 + I)·bucket; bucket 0 is no gap.

    Args:
        plain: whose tables and model it has.
    """

    def __init__(self, plain: NextItemRecommender) -> None:
        super().__init__(plain.embedding, plain.first_order, plain.model)
        self.gaps = nn.Embedding(NUM_BUCKETS, plain.embedding.embedding_dim, padding_idx=0)
        nn.init.zeros_(self.gaps.weight)
        self.model.add_module("gaps", self.gaps)  # whose parameters the optimizer has

    def present(self, histories: Tensor) -> Tensor:
        return histories % (1 + self.num_items) != 0

    def embed(self, items: Tensor) -> Tensor:
        size = 1 + self.num_items
        gaps: Tensor = self.gaps(items // size)
        return super().embed(items % size) + gaps


class GapFit(NextItemFit):
    """`NextItemFit` of a recommender with gaps, by the softmax over all items."""

    def _whole(self, histories: Tensor, present: Tensor, targets: Tensor, _: torch.Generator) -> Tensor:
        recommender = self.recommender
        users = self._users(recommender.embed(histories), present, len(targets) - int(present.sum()))
        items, biases = recommender.item_vectors()
        return softmax_loss(
            users, items, biases, targets % (1 + recommender.num_items) - 1, self.settings.precision
        )


def times(folder: Path, dataset: Dataset, log: Log) -> np.ndarray:
    """The seconds of each interaction of a log of MovieLens-1M, (T,) int64."""
    files = layout_of(SOURCE_1M, folder)
    assert files is not None  # `obtain` returns no other folder
    spec, (part,) = movielens_table(folder, files, dataset.schema, "leave_last_out")
    read = [spec.computed.columns[name] for name in ("user", "item", "timestamp")]

    def numbers(*cells: str) -> list[int]:
        return [int(value(cell)) for (_, value), cell in zip(read, cells, strict=True)]

    rows = np.array(read_rows(part.path, spec.format, [name for name, _ in read], numbers, WAY_OUT))
    assert dataset.sequences is not None
    assert dataset.sequences.users is not None
    place = {int(user): number for number, user in enumerate(dataset.sequences.users.tolist())}
    users = np.array([place[user] for user in rows[:, 0].tolist()])
    order = np.lexsort((rows[:, 2], users))
    field = dataset.schema.names.index(str(dataset.schema.item_key))
    keys = np.asarray(dataset.vocabulary.keys[field])
    known = log.items != 0
    if not np.array_equal(keys[log.items[known] - 1].astype(np.int64), rows[order, 1][known]):
        raise UserError(f"{folder}: its ratings are not those of the run's log")
    return rows[order, 2]


def buckets(seconds: np.ndarray, offsets: np.ndarray, gap: str) -> np.ndarray:
    """Of each interaction of a log the bucket, from 1, of the time until the next of its user, or since the last.

    Shape: seconds (T,), offsets (U + 1,) -> (T,) int64; 0 where there is no other.
    """
    steps = np.append(np.diff(seconds), 0)
    result = 1 + np.floor(np.log2(1 + np.maximum(steps, 0))).astype(np.int64)
    result[offsets[1:] - 1] = 0  # what follows is another user's
    return result if gap == "until" else np.append(0, result[:-1])


def trained(run: Run, dataset: Dataset, folder: Path, gap: str, epochs: int | None) -> dict[str, Any]:
    """Metrics of the run's dense model, trained with gaps."""
    config, log, info = run.config, Log.of(dataset), item_info(dataset)
    settings = config.train if epochs is None else replace(config.train, epochs=epochs)
    number = buckets(times(folder, dataset, log), log.offsets, gap)
    joined = replace(log, items=np.where(log.items != 0, log.items + (1 + log.num_items) * number, 0))
    torch.manual_seed(config.run.seed)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    info = replace(info, counts=torch.from_numpy(log.counts()))
    plain = next_item.build(
        info,
        model=config.model.name,
        model_options=plain_options(config.model.options),
        dim=config.embedding.dim,
        init_std=config.embedding.init_std,
    )
    recommender, last = WithGaps(plain), plain.model.last
    moments = {
        split: replace(Moments.of(log, split, last), histories=Moments.of(joined, split, last).histories)
        for split in ("valid", "test")
    }
    windows = Windows(joined, last, settings.windows, settings.batch_size, torch.device("cpu"))
    fit = GapFit(
        recommender, windows, moments["valid"], settings, config.run.seed, progress=Progress(show=True)
    )
    result = fit.run()
    return {
        "epochs": result.epochs,
        "seconds": result.seconds,
        **{split: summary(rank_next(recommender, moments[split])) for split in moments},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a finished run of the next item on MovieLens-1M")
    parser.add_argument("data", nargs="*", metavar="data.key=value", help="where the data are")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--gaps", nargs="+", choices=GAPS, default=GAPS)
    parser.add_argument("--epochs", type=int, help="other than the run's")
    options = parser.parse_intermixed_args()
    run = Run(options.run)
    if not is_next_item_run(run.metrics) or run.config.data.name != "movielens_1m":
        raise UserError(f"{options.run}: no run of the next item on MovieLens-1M")
    given = {**run.config.data.options, **run.data, **data_options(options.data)}
    dataset = load_dataset("movielens_1m", **given)
    folder = obtain(SOURCE_1M, given.get("folder"))
    dense = run.metrics["dense"]
    content: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "model": run.config.model.name,
        "seed": run.config.run.seed,
        "environment": environment(),
        "models": {"none": {"epochs": dense["epochs"], **{s: dense[s]["all"] for s in ("valid", "test")}}},
    }
    for gap in options.gaps:
        content["models"][gap] = trained(run, dataset, folder, gap, options.epochs)
        atomic_json(options.json, content)
    for name, entry in content["models"].items():
        figures = " ".join(f"{split} {entry[split]['ndcg@10']:.4f}" for split in ("valid", "test"))
        print(f"{name:6} NDCG@10 {figures}", flush=True)


if __name__ == "__main__":
    run_script(main)
