"""The next item on MovieLens-1M: popularity, item-item, EASE and RecTools' SASRec beside finished runs of ours.

python benchmarks/peers_next_item.py --json FILE [--runs runs/A runs/B …] [--rectools PYTHON] [section data.key=value …]

All of them see the same training split (each user's last rating is the test, the one before it validation), rank all
films with those the user has rated left out, and are measured by the same lines. Choices are made on validation, and
the test split is read once by each. What is in the file already is not measured again.

RecTools wants Python ≤ 3.13, pandas < 3 and numpy < 2, so an environment of its own:

    uv venv --python 3.12 /tmp/rectools
    uv pip install --python /tmp/rectools/bin/python 'rectools[torch]' 'pandas<3' 'numpy<2'
    python benchmarks/peers_next_item.py --json FILE --rectools /tmp/rectools/bin/python
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor

from ondevice.bench.report.report import environment
from ondevice.errors import UserError, run_script
from ondevice.files import atomic_json
from ondevice.run.directory import Run, data_options
from ondevice.run.next_item import is_next_item_run
from ondevice.training.ranking import UNRANKED, Ranking, by_group, rank_all, summary, user_groups
from ondevice.training.windows import Log, Moments

DATA = {"name": "movielens_1m", "fields": "next_item", "split": "leave_last_out"}
LATEST = 20  # items of a short history
LAMBDAS = (100.0, 300.0, 600.0, 1000.0)
CALLS = 500  # that are timed
LIST = 100  # items that RecTools is asked for
Scores = Callable[[int, int], Tensor]


class Peers:
    """Models without training, fitted on the training split of a log.

    Args:
        log: what users did.
    """

    def __init__(self, log: Log) -> None:
        self.log, self.size = log, log.num_items
        self.counts = torch.from_numpy(log.counts()[1:]).float()
        self.moments = {split: Moments.of(log, split, LATEST) for split in ("valid", "test")}

    def matrix(self) -> Tensor:
        """Which user has done what in training, (U, I) float32."""
        places = self.log.of_split("train")
        users = np.searchsorted(self.log.offsets, places, side="right") - 1
        items = self.log.items[places]
        matrix = torch.zeros(len(self.log.offsets) - 1, self.size)
        matrix[torch.from_numpy(users[items > 0]), torch.from_numpy(items[items > 0] - 1)] = 1.0
        return matrix

    def popularity(self, split: str) -> Scores:
        """How often training saw each item."""
        return lambda begin, end: self.counts.expand(end - begin, -1).clone()

    def of_history(self, weights: Tensor, split: str, latest: bool) -> Scores:
        """Sums of an item-item matrix's rows (I, I) over what a user did, or over the last of it."""
        moments = self.moments[split]

        def scores_of(begin: int, end: int) -> Tensor:
            history = torch.zeros(end - begin, self.size + 1)
            if latest:
                history.scatter_(1, moments.histories[begin:end], 1.0)
            else:
                users, items = moments.seen.of(begin, end)
                history[users, items + 1] = 1.0
            return history[:, 1:] @ weights

        return scores_of

    def rank(self, scores_of: Scores, split: str) -> Ranking:
        moments = self.moments[split]
        return rank_all(scores_of, moments.targets, moments.seen, self.size)

    def ndcg(self, scores_of: Scores) -> float:
        """NDCG@10 on validation."""
        return summary(self.rank(scores_of, "valid"))["ndcg@10"]

    def measured(self, ranking: Ranking) -> dict[str, dict[str, float]]:
        """Metrics of the test split, all users and by group."""
        moments = self.moments["test"]
        known = moments.targets.items >= 0
        counts = torch.where(known, self.counts[moments.targets.items.clamp(min=0)].long(), 0)
        return {"all": summary(ranking), **by_group(ranking, user_groups(moments.lengths, counts))}


def cosine(matrix: Tensor) -> Tensor:
    """Cosine similarities of the columns (I, I), 0 of each with itself."""
    together = matrix.T @ matrix
    norms = together.diagonal().clamp(min=1).sqrt()
    return (together / norms / norms[:, None]).fill_diagonal_(0.0)


def ease(matrix: Tensor, penalty: float) -> Tensor:
    """EASE's item-item weights (I, I): B = I − P·diag(1 / P_ii), P = (XᵀX + λI)⁻¹ (arXiv 1905.03375, equation 8)."""
    together = matrix.T @ matrix
    together.diagonal().add_(penalty)
    inverse = torch.linalg.inv(together)
    return (-inverse / inverse.diagonal()).fill_diagonal_(0.0)


def measure(peers: Peers) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each peer's name and what it reached."""
    began = time.perf_counter()

    def entry(scores_of: Scores, split_valid: float, **chosen: Any) -> dict[str, Any]:
        test = peers.measured(peers.rank(scores_of, "test"))
        seconds = round(time.perf_counter() - began, 1)
        return {"valid_ndcg@10": split_valid, **chosen, "test": test, "seconds": seconds}

    valid = peers.ndcg(peers.popularity("valid"))
    yield "popularity", entry(peers.popularity("test"), valid)
    matrix = peers.matrix()
    for latest, words in ((False, "whole history"), (True, f"last {LATEST}")):
        began = time.perf_counter()
        weights = cosine(matrix)
        valid = peers.ndcg(peers.of_history(weights, "valid", latest))
        yield f"item-item, {words}", entry(peers.of_history(weights, "test", latest), valid)
    tried: dict[tuple[float, bool], float] = {}
    seconds = 0.0
    for penalty in LAMBDAS:
        began = time.perf_counter()
        weights = ease(matrix, penalty)
        seconds = time.perf_counter() - began
        for latest in (False, True):
            tried[penalty, latest] = peers.ndcg(peers.of_history(weights, "valid", latest))
    for latest, words in ((False, "whole history"), (True, f"last {LATEST}")):
        began = time.perf_counter() - seconds
        best = max(LAMBDAS, key=lambda penalty: tried[penalty, latest])
        scores_of = peers.of_history(ease(matrix, best), "test", latest)
        yield f"EASE, {words}", entry(scores_of, tried[best, latest], penalty=best)


def of_lists(peers: Peers, lists: np.ndarray, split: str) -> Ranking:
    """Where what came next stands in lists (Q, LIST) of items, 0 where one ends."""
    shown, targets = torch.from_numpy(lists) - 1, peers.moments[split].targets
    hits = shown == targets.items[:, None]
    ranks = torch.where(hits.any(1) & (targets.items >= 0), hits.int().argmax(1) + 1, UNRANKED)
    return Ranking(ranks, targets, shown, peers.size)


def rectools(peers: Peers, python: str, epochs: list[int], seed: int) -> dict[str, Any]:
    """RecTools' SASRec in its own environment: its lists, measured here, after the epochs that validation chooses."""
    log = peers.log
    with tempfile.TemporaryDirectory() as folder:
        given, taken = Path(folder) / "log.npz", Path(folder) / "lists.npz"
        np.savez(given, items=log.items, offsets=log.offsets, division=log.division)
        script = Path(__file__).resolve().with_name("rectools_sasrec.py")
        numbers = [f"--seed={seed}", f"--length={LIST}", "--epochs", *map(str, epochs)]
        command = [os.path.abspath(python), str(script), str(given), str(taken), *numbers]
        subprocess.run(command, check=True, cwd=folder)  # its trainer writes where it stands
        with np.load(taken) as content:
            told = dict(content)
    tried = [summary(of_lists(peers, lists, "valid"))["ndcg@10"] for lists in told["valid"]]
    best = int(np.argmax(tried))
    return {
        "valid_ndcg@10": tried[best],
        "test": peers.measured(of_lists(peers, told["test"][best], "test")),
        "epochs": epochs[best],
        "tried": dict(zip(map(str, epochs), tried, strict=True)),
        "seed": seed,
        "seconds": told["seconds"][best].item(),
        **{key: told[key].item() for key in ("version", "parameters")},
        "note": f"MRR of the first {LIST} places",
    }


def of_bundle(path: Path) -> dict[str, Any]:
    """Bytes of a bundle, what its export has compared, and the time of ``recommend`` here with one thread or more."""
    from ondevice.bundle.manifest import COST
    from ondevice.program.bundle import load_bundle

    bundle = load_bundle(path)
    raw = bundle.manifest["golden"][0]["raw"]
    name = bundle.schema.histories[0].name
    rows = bundle.encode({name: raw[name]}, bundle.schema.context_fields)
    context = np.pad(rows, (0, bundle.schema.num_gaps))
    excluded = np.array([[bundle.num_rows]], dtype=np.int64)
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        bundle.program("recommend", context[None], excluded)
        times.append(1e6 * (time.perf_counter() - began))
    return {
        "bytes": bundle.file_bytes(),
        "recommend_p50_us": round(float(np.median(times)), 1),
        "history": int((rows < bundle.num_rows).sum()),
        **json.loads((path / COST).read_text()),
    }


def of_run(path: str) -> dict[str, Any]:
    """What a finished run of ours has measured."""
    run = Run(path)
    metrics = run.metrics
    if not is_next_item_run(metrics):
        raise UserError(f"{path}: a run of ratings; name runs of the next item")
    dense, config = metrics["dense"], run.config.to_dict()
    bundles = {place.name: of_bundle(place) for place in sorted((run.path / "bundles").glob("*"))}
    return {
        **({"bundles": bundles} if bundles else {}),
        "valid_ndcg@10": dense["valid"]["all"]["ndcg@10"],
        **{key: dense[key] for key in ("test", "parameters", "epochs", "seconds")},
        "seed": metrics["seed"],
        "config": {section: config[section] for section in ("data", "model", "embedding", "train")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="*", metavar="data.key=value", help="where the data are")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--runs", nargs="*", default=[], help="finished run directories of the next item")
    parser.add_argument("--rectools", metavar="PYTHON", help="the Python of an environment with RecTools")
    parser.add_argument(
        "--epochs",
        type=int,
        nargs="+",
        default=[25],
        help="of RecTools' SASRec: several are tried on validation",
    )
    parser.add_argument("--seed", type=int, default=0, help="of RecTools' SASRec")
    options = parser.parse_intermixed_args()
    content: dict[str, Any] = {"models": {}}
    with contextlib.suppress(FileNotFoundError):
        content = json.loads(options.json.read_text())
    models, command = content["models"], " ".join(["python", *sys.argv])

    def keep(name: str, entry: dict[str, Any]) -> None:
        models[name] = {"command": command, **entry}
        content["environment"] = environment()
        atomic_json(options.json, content)
        best = entry["test"]["all"]
        print(f"{name:40} HR@10 {best['hr@10']:.4f}  NDCG@10 {best['ndcg@10']:.4f}", flush=True)

    for path in options.runs:
        keep(f"{Path(path).name}", of_run(path))
    wanted = "EASE, whole history" not in models
    name = f"RecTools SASRec, seed {options.seed}"
    if len(options.epochs) > 1:
        name += f", epochs {' '.join(map(str, options.epochs))}"
    asks_rectools = options.rectools is not None and name not in models
    if wanted or asks_rectools:
        from ondevice.data import load_dataset

        given = {**DATA, **data_options(options.data)}
        peers = Peers(Log.of(load_dataset(given.pop("name"), **given)))
        for peer, entry in measure(peers) if wanted else ():
            keep(peer, entry)
        if asks_rectools:
            keep(name, rectools(peers, options.rectools, options.epochs, options.seed))


if __name__ == "__main__":
    run_script(main)
