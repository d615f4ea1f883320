"""RecTools' SASRec on a log, in an environment of its own: `peers_next_item.py` starts it, and says how to make one.

PYTHON benchmarks/rectools_sasrec.py LOG.npz LISTS.npz --epochs 25 50 --seed 0 --length 100

Nothing of this repository is imported. Two blocks, d = 64, the last 50 items, softmax over all items: the size of
ours. It is fitted on the training split; for the test its histories include what validation has. With several
numbers of epochs there are lists of both splits after each.
"""

import argparse
import time
from importlib.metadata import version

import numpy as np
import pandas as pd
import torch
from lightning_fabric import seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log")
    parser.add_argument("lists")
    parser.add_argument("--epochs", type=int, nargs="+", required=True, help="rising")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    options = parser.parse_args()
    with np.load(options.log) as content:
        items, offsets, division = (content[name] for name in ("items", "offsets", "division"))
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    rows = pd.DataFrame(
        {
            Columns.User: users,
            Columns.Item: items,
            Columns.Weight: 1.0,
            # places in time order stand for times, so that equal times keep their order
            Columns.Datetime: pd.to_datetime(np.arange(len(items)), unit="s"),
        }
    )
    known = items > 0
    seed_everything(options.seed, workers=True)
    model = SASRecModel(
        n_factors=64,
        n_blocks=2,
        n_heads=2,
        session_max_len=50,
        dropout_rate=0.2,
        loss="softmax",
        lr=1e-3,
        batch_size=128,
        epochs=options.epochs[0],
        deterministic=True,
    )

    def lists_of(split: int) -> np.ndarray:
        """The items shown to the users of a split, who have what comes before it, 0 where a list ends (Q, length)."""
        asked = users[division == split]
        before = Dataset.construct(rows[known & (division < split)])
        shown = model.recommend(asked, before, k=options.length, filter_viewed=True)
        lists = np.zeros((len(asked), options.length), dtype=np.int64)
        places = np.searchsorted(asked, shown[Columns.User].to_numpy())
        lists[places, shown[Columns.Rank].to_numpy() - 1] = shown[Columns.Item].to_numpy()
        return lists

    train = Dataset.construct(rows[known & (division == 0)])
    seconds, done, lists = [], 0, []
    for epochs in options.epochs:
        began = time.perf_counter()
        model.fit_partial(train, min_epochs=epochs - done, max_epochs=epochs - done)
        done = epochs
        seconds.append(round(time.perf_counter() - began, 1))
        lists.append((lists_of(1), lists_of(2)))
        print(f"torch {torch.__version__}, {epochs} epochs in {sum(seconds):.0f} s", flush=True)
    valid, test = map(np.stack, zip(*lists, strict=True))
    np.savez(
        options.lists,
        valid=valid,
        test=test,
        seconds=np.cumsum(seconds),
        version=np.array(version("rectools")),
        parameters=np.array(sum(p.numel() for p in model.torch_model.parameters())),
    )


if __name__ == "__main__":
    main()
