"""The main job with tables that no process holds as a whole.

The dense model and the search are sharded. What is left afterwards, the rows that keep something, is small: the
compact models are trained like those of other runs, by all processes, over a vocabulary of these rows alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

from ondevice.config.sections import Config
from ondevice.data.kept import keep_ids, kept_id_map, with_unknown
from ondevice.errors import UserError
from ondevice.forms.base import Form
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import table_info
from ondevice.methods import METHODS
from ondevice.methods.base import Selection
from ondevice.methods.build import build
from ondevice.models import MODELS
from ondevice.recommender import Recommender
from ondevice.run.budgets import Budgets
from ondevice.run.directory import KEPT
from ondevice.run.pipeline import Pipeline
from ondevice.sharded.checkpoint import gather_rows, load_rows, save_rows
from ondevice.sharded.initial import InitialRows
from ondevice.sharded.recommender import WEIGHT, ShardedRecommender, Thresholds
from ondevice.sharded.training import ShardedFit, ShardedSearch
from ondevice.training.fit import FitResult, count_parameters
from ondevice.training.norm import synced
from ondevice.training.progress import OnEpoch

MAX_DIM = 255  # a row's size is gathered as one byte


def check_sharded(config: Config) -> None:
    """Whether a configuration can be trained with sharded tables.

    Raises: UserError: naming the first key that cannot, and the way out.
    """
    sizes = config.compact.sizes
    whole = "or use distributed=ddp where the tables fit"
    try:
        METHODS[sizes.name].row_search(sizes.options)
    except UserError as error:
        raise UserError(f"{error}, {whole}") from None
    checks = [
        (
            config.embedding.first_order is None,
            "embedding.first_order: first-order weights share the sharded table; leave it null",
        ),
        (config.embedding.dim <= MAX_DIM, f"embedding.dim: got {config.embedding.dim}; at most {MAX_DIM}"),
        (
            not config.compact.store.keeps_positions,
            "compact.store.name: sharded tables end in sizes; use int8 or codes",
        ),
        (
            not config.compact.train.elastic,
            "compact.train.elastic: sharded tables are retrained for each budget; set false",
        ),
        (
            config.research.start != "dense",
            "research.start: trained tables are not gathered for a warm start; set initial or fresh",
        ),
        (
            config.train.ema_decay == 0,
            "train.ema_decay: an average touches every row; set 0 (compact.train.ema_decay may stay)",
        ),
    ]
    for section, decay in (("train", config.train.weight_decay), ("compact.sizes", sizes.weight_decay)):
        checks.append((decay == 0, f"{section}.weight_decay: it touches every row; use embedding_penalty"))
    for holds, message in checks:
        if not holds:
            raise UserError(f"{message}, {whole}")


class ShardedPipeline(Pipeline):
    """`Pipeline` for ``distributed=sharded``: the same phases, files and numbers.

    Raises: UserError: also for what sharded tables cannot do.
    """

    def __init__(
        self, config: Config, folder: str | Path, resume: bool = False, on_epoch: OnEpoch | None = None
    ) -> None:
        check_sharded(config)
        super().__init__(config, folder, resume, on_epoch)

    def _rows(self, seed: int) -> InitialRows:
        first_order = MODELS[self.config.model.name].uses_first_order
        embedding = self.config.embedding
        return InitialRows(self.info.num_embeddings, embedding.dim, first_order, embedding.init_std, seed)

    def _sharded(
        self, learning_rate: float, seed: int, thresholds: Thresholds | None = None
    ) -> ShardedRecommender:
        """A recommender with fresh weights, in all processes."""
        torch.manual_seed(seed)
        base = MODELS[self.config.model.name](
            self.info.num_fields, self.config.embedding.dim, **self.model_options
        )
        recommender = ShardedRecommender(
            self.info,
            base,
            self._rows(seed),
            self.config.distributed,
            self.config.distributed.table_learning_rate or learning_rate,
            self.processes,
            self.device,
            thresholds,
            skip=() if thresholds is None else self.skip,
        )
        synced(recommender, self.processes)
        return recommender

    def _checkpoint(self, phase: str) -> Path:
        return self.files.checkpoint(phase).with_suffix("")

    def dense(self) -> ShardedRecommender:  # type: ignore[override]
        """The dense model: trained, or read back."""
        recommender, result = self._dense("dense", self.config.run.seed)
        if result is not None:
            parameters = recommender.num_values() + count_parameters(recommender)
            self._finish("dense", recommender, result, {"parameters": parameters})  # type: ignore[arg-type]
        return recommender.eval()

    def _further_dense(self, number: int) -> ShardedRecommender:  # type: ignore[override]
        phase = f"dense+{number}"
        recommender, result = self._dense(phase, self.config.run.seed + number)
        if result is not None:
            self.files.remember(**{phase: {"valid_auc": result.valid["auc"], "epochs": result.epochs}})
            self.files.forget("dense")
        return recommender.eval()

    def _dense(self, phase: str, seed: int) -> tuple[ShardedRecommender, FitResult | None]:
        """A dense model, and how its training went; None when that was done before."""
        settings = self.config.train
        recommender = self._sharded(settings.learning_rate, seed)
        rows = self.folder / phase / "rows"
        weights = {WEIGHT: recommender.store.state()[WEIGHT]}
        if phase in self.state:
            recommender.load_state_dict(load_file(self.folder / phase / "base.safetensors"))
            load_rows(rows, recommender.store, weights)
            return recommender, None
        train = self.train_batches(settings.batch_size)
        result = ShardedFit(
            recommender,
            train,
            self.valid,
            settings,
            seed=seed,
            phase="dense",
            progress=self.progress,
            checkpoint=self._checkpoint("dense"),
            teacher=self.teacher_of(train, None),
            processes=self.processes,
            distributed=self.config.distributed,
        ).run()
        save_rows(rows, recommender.store, weights)
        self.files.write(f"{phase}/base.safetensors", _on_cpu(recommender.state_dict()))
        return recommender, result

    def _thresholds(self) -> Thresholds:
        sizes = self.config.compact.sizes
        rate = sizes.threshold_learning_rate or sizes.learning_rate
        return Thresholds(METHODS[sizes.name].row_search(sizes.options), rate)

    def search(self, dense: Recommender, targets: list[int]) -> dict[int, list[Selection]]:
        """The sizes at each target, of the rows that keep something at any."""
        if "search" not in self.state:
            self._search(dense, targets)
        elif not set(targets) <= {int(t) for t in self.state["search"]["targets"]}:
            raise UserError(
                f"{self.folder}: compact.budgets: sharded tables are not searched again for another budget, since the "
                "compact models share a vocabulary; name another run.output=DIR"
            )
        stored = {n: t.numpy() for n, t in load_file(self.folder / "search.safetensors").items()}
        offsets = self.dataset.vocabulary.field_offsets
        alive = np.zeros(int(offsets[-1]), dtype=bool)
        for sizes in stored.values():
            alive |= sizes > 0
        self.kept = with_unknown(offsets, np.flatnonzero(alive))
        self.files.write(KEPT, {"ids": torch.from_numpy(self.kept)})
        shipped = keep_ids(self.dataset, self.kept)
        self.shipped_info = table_info(shipped.vocabulary.field_offsets, shipped.counts)
        self.budgets = Budgets(self.config, shipped, self.shipped_info)
        dims = [self.config.embedding.dim, 1]
        return {
            target: [
                Sizes(torch.from_numpy(stored[f"{target}/{i}"][self.kept]).long(), dims[i])
                for i in range(2)
                if f"{target}/{i}" in stored
            ]
            for target in targets
        }

    def _search(self, dense: Recommender, targets: list[int]) -> None:
        """Search, and write the sizes that were found, a byte for each row and target."""
        settings = self.config.compact.sizes
        recommender = self._sharded(settings.learning_rate, self.config.run.seed, self._thresholds())
        search = ShardedSearch(
            recommender,
            self.train_batches(settings.batch_size),
            self.valid,
            settings,
            targets,
            seed=self.config.run.seed,
            progress=self.progress,
            checkpoint=self._checkpoint("search"),
            processes=self.processes,
        )
        result = search.run()
        content = {}
        for target, parts in result.forms.items():
            for i, local in enumerate(parts):
                sizes = gather_rows(local, recommender.store)  # type: ignore[arg-type]
                if sizes is not None:
                    content[f"{target}/{i}"] = sizes.cpu().contiguous()
        self.files.write("search.safetensors", content)
        entry = {
            "seconds": round(result.seconds, 2),
            "targets": [str(t) for t in targets],
        }
        self.files.remember(search=entry, history={**self.state["history"], "search": result.history})
        self.files.forget("search")

    def _start(self, forms: list[Form]) -> Recommender:
        """A compact recommender of the kept rows, which takes ids of the whole vocabulary."""
        initial = None
        if self.config.research.start == "initial":
            torch.manual_seed(self.config.run.seed)
            initial = build(
                self.shipped_info,
                model=self.config.model.name,
                model_options=self.model_options,
                method="uniform",
                method_options={},
                embedding_dim=self.config.embedding.dim,
            )
            values = self._initial_values()
            widths = [table.embedding_dim for table in initial.tables()]
            for table, part in zip(initial.tables(), values.split(widths, 1), strict=True):
                table.weight.data.copy_(part)
        recommender = self.rebuilt(self.shipped_info, forms, initial)
        recommender.take_vocabulary(
            torch.from_numpy(kept_id_map(self.dataset.vocabulary.field_offsets, self.kept))
        )
        return recommender

    def _initial_values(self) -> Tensor:
        """Initial weights of the kept rows, (K, width): each process makes its part, and all get them."""
        kept = torch.from_numpy(self.kept)
        parts = kept.tensor_split(self.processes.size)
        local = self._rows(self.config.run.seed).take(parts[self.processes.rank])
        if self.processes.size == 1:
            return local
        padded = local.new_zeros(max(map(len, parts)), local.shape[1], device=self.device)
        padded[: len(local)] = local
        gathered = [torch.empty_like(padded) for _ in parts]
        dist.all_gather(gathered, padded)
        return torch.cat([g[: len(p)] for g, p in zip(gathered, parts, strict=True)]).cpu()


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
