"""How items that no training saw are ranked by their attributes: what `train.item_dropout` gives, and what it costs.

python benchmarks/new_items.py --json FILE [--dropouts 0 0.1 0.3] [--epochs 20] [--seed 0] [--compact] [data.key=…]

A tenth of the items is held out of everything that training reads: their rows of interaction, and their place among the
items. Then they come back as new items, with the vector of their attributes alone, and all moments of validation and
test at which one of them came are ranked over the whole catalogue, seen items left out. Beside them: the same models
without a vector for new items (zero: no attributes), an order by chance, and what the models do for known items. With
``--compact`` each model has a compact one beside it, whose items are codes, begun with it and taught by it, as `recipe:
next_item_compact` says, with sizes by frequency; what attributes are worth is fitted to its rows, as by an export.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor

from ondevice import next_item
from ondevice.bench.report.report import environment
from ondevice.config.file import load, plain_options
from ondevice.data import Dataset, load_dataset
from ondevice.errors import run_script
from ondevice.files import atomic_json
from ondevice.forms.table import table_info
from ondevice.methods.next_item_codes import next_item_stages
from ondevice.methods.sizes.frequency import Frequency
from ondevice.models.item_attributes import ItemAttributes
from ondevice.run.budgets import final_forms
from ondevice.run.directory import data_options
from ondevice.training import qat
from ondevice.training.next_item import NextItemFit
from ondevice.training.ranking import Lists, dot_scores, rank_all, summary
from ondevice.training.rankings import RankingTeachers
from ondevice.training.windows import Log, Moments, Windows

CONFIG = Path(__file__).resolve().parents[1] / "train" / "configs" / "movielens_1m_next_item_attributes.yaml"
COMPACT = CONFIG.with_name("movielens_1m_next_item_compact.yaml")
SHARE = 0.1
"""Of the items that are held out."""
SIZE = 32
"""Dimensions that a compact model stores of an item, in the mean."""


class HeldOut:
    """A data set whose last items are new: known items have the numbers 1 … I', new ones those after them.

    Args:
        dataset: with attributes of its items.
        seed: draws the new items.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        whole = Log.of(dataset)
        random = np.random.default_rng(seed)
        order = random.permutation(np.arange(1, whole.num_items + 1))
        self.num_new = round(SHARE * whole.num_items)
        self.num_known = whole.num_items - self.num_new
        self.order = np.append(0, order)  # the old number of each new one
        number = np.empty_like(self.order)
        number[self.order] = np.arange(len(self.order))
        self.dataset, self.items = dataset, number[whole.items]
        known = np.where(self.items <= self.num_known, self.items, 0)
        self.log = Log(known, whole.offsets, whole.division, self.num_known)

    def attributes(self, dim: int) -> ItemAttributes:
        """Of all items, in their new order."""
        made = ItemAttributes.of(self.dataset, dim)
        assert made is not None
        made.ids, made.shares = made.ids[self.order], made.shares[self.order]
        return made

    def moments(self, split: str, last: int) -> Moments:
        """Moments of a split, whose targets may be new items and whose histories hold known ones alone."""
        moments = Moments.of(self.log, split, last)
        return Moments(
            moments.histories,
            Lists.single(torch.from_numpy(self.items[self.log.of_split(split)] - 1)),
            moments.seen,
        )


def trained(held: HeldOut, dropout: float, epochs: int, seed: int) -> next_item.NextItemRecommender:
    """The model of the shipped configuration, trained without the new items."""
    config = load(
        CONFIG, [f"train.item_dropout={dropout}", f"train.epochs={epochs}", f"train.patience={epochs}"]
    )
    settings, device = config.train, torch.device("cpu")
    torch.manual_seed(seed)
    recommender = next_item.build(
        table_info([0, 1 + held.num_known], held.log.counts()),
        model=config.model.name,
        model_options=plain_options(config.model.options),
        dim=config.embedding.dim,
        attributes=held.attributes(config.embedding.dim),
    )
    last = recommender.model.last
    windows = Windows(held.log, last, settings.windows, settings.batch_size, device)
    NextItemFit(recommender, windows, Moments.of(held.log, "valid", last), settings, seed=seed).run()
    return recommender.eval()


def fitted(held: HeldOut, recommender: next_item.NextItemRecommender) -> ItemAttributes:
    """Attributes whose values are fitted to a model's finished items, as an export does it."""
    rows, biases = recommender.item_vectors()
    attributes, counts = held.attributes(rows.shape[1]), recommender.info.counts[1:]
    stored = (counts > 0).nonzero()[:, 0]
    vectors = torch.cat([rows, biases[:, None]], 1).detach()[stored]
    attributes.fit(1 + stored, vectors, counts[stored])
    return attributes


def compacted(
    held: HeldOut, dense: next_item.NextItemRecommender, seed: int
) -> next_item.NextItemRecommender:
    """A compact model of a trained one."""
    config = load(COMPACT, ["compact.teach.teachers=[dense]"])
    choice, last, compact = load(CONFIG).model, dense.model.last, config.compact
    settings, store, info, dim = compact.train, compact.store, dense.info, dense.embedding.embedding_dim
    seen = (info.counts > 0) & (torch.arange(info.num_embeddings) > 0)
    rule, target = Frequency(info, dim, max_size=dim), SIZE * held.num_known
    (form,) = final_forms([rule.compact(target).without(~seen)], target, store, share=False)
    form = form.with_sizes(torch.maximum(form.row_sizes(), store.size_step * seen))
    options, whole = {**plain_options(choice.options), "dropout": 0.0}, dense.baked().eval()
    torch.manual_seed(seed)
    made = next_item.rebuild(info, [form], model=choice.name, model_options=options, initial=whole)
    qat.prepare(made.model, store.linear_bits)
    windows = Windows(held.log, last, settings.windows, settings.batch_size, torch.device("cpu"))
    teacher = RankingTeachers([whole], compact.teach, last, 1.0, settings.precision)
    moments, stages = Moments.of(held.log, "valid", last), next_item_stages(store)
    NextItemFit(made, windows, moments, settings, seed=seed, teacher=teacher, make_stages=stages).run()
    qat.finish(made.model)
    return made.eval()


@torch.no_grad()
def measured(
    held: HeldOut, recommender: next_item.NextItemRecommender, attributes: ItemAttributes
) -> dict[str, dict[str, float]]:
    """Metrics at the moments of new items, with and without their attributes, and at those of known ones."""
    vectors, biases = recommender.item_vectors()
    added = attributes(torch.arange(1 + held.num_known, 1 + held.num_known + held.num_new))
    nothing = torch.zeros_like(added)
    last, result = recommender.model.last, {}
    for name, splits, new in (
        ("new items", ("valid", "test"), added),
        ("new items without attributes", ("valid", "test"), nothing),
        ("known items", ("test",), added),
    ):
        parts = [held.moments(split, last) for split in splits]
        targets = torch.cat([part.targets.items for part in parts])
        chosen = (targets >= held.num_known) if name != "known items" else (targets < held.num_known)
        users = torch.cat([recommender.newest(some) for part in parts for some in part.histories.split(256)])
        lists = [part.seen.items.split(part.seen.offsets.diff().tolist()) for part in parts]
        seen = [one for part in lists for one in part]
        places = chosen.nonzero()[:, 0].tolist()
        of_chosen = [seen[place] for place in places]
        offsets = torch.tensor([0, *np.cumsum([len(one) for one in of_chosen]).tolist()])
        scores = dot_scores(users[chosen], torch.cat([vectors, new[:, :-1]]), torch.cat([biases, new[:, -1]]))
        ranking = rank_all(
            scores,
            Lists.single(targets[chosen]),
            Lists(torch.cat(of_chosen), offsets),
            held.num_known + held.num_new,
        )
        result[name] = {"moments": len(places), **summary(ranking)}
    return result


def by_chance(num_items: int, k: int = 10) -> dict[str, float]:
    """Of one target at a random place among so many items: the mean HR@K, NDCG@K and MRR."""
    ranks: Tensor = torch.arange(1, num_items + 1).double()
    return {
        f"hr@{k}": k / num_items,
        f"ndcg@{k}": float((1 / torch.log2(1 + ranks[:k])).sum()) / num_items,
        "mrr": float((1 / ranks).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="*", metavar="data.key=value", help="which data, and where they are")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--dropouts", nargs="+", type=float, default=[0.0, 0.1, 0.3])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compact", action="store_true", help="compact models, too")
    options = parser.parse_intermixed_args()
    given = {**load(CONFIG).data.options, "name": "movielens_1m", **data_options(options.data)}
    held = HeldOut(load_dataset(given.pop("name"), **given), options.seed)
    content: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "data": held.dataset.schema.name,
        "known_items": held.num_known,
        "new_items": held.num_new,
        "by_chance": by_chance(held.num_known + held.num_new),
        "environment": environment(),
        "models": {},
    }
    for dropout in options.dropouts:
        dense = trained(held, dropout, options.epochs, options.seed)
        assert dense.attributes is not None
        entries = {
            f"item_dropout {dropout}, trained": measured(held, dense, dense.attributes),
            f"item_dropout {dropout}": measured(held, dense, fitted(held, dense)),
        }
        if options.compact:
            made = compacted(held, dense, options.seed)
            entries[f"compact, item_dropout {dropout}"] = measured(held, made, fitted(held, made))
        content["models"] |= entries
        atomic_json(options.json, content)
        for model, entry in entries.items():
            for name, figures in entry.items():
                print(
                    f"{model:26} {name:26} NDCG@10 {figures['ndcg@10']:.4f} MRR {figures['mrr']:.4f}",
                    flush=True,
                )


if __name__ == "__main__":
    run_script(main)
