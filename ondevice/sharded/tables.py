"""Tables too large for one process: TorchRec's DistributedModelParallel, each process holding some rows of each.

A table is an embedding collection of its own, sharded row-wise, so that it can have an optimizer of its own. The
optimizer is fused into the backward pass and touches the rows of the batch alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ondevice.errors import ConfigError, MissingPackage
from ondevice.training.processes import Processes

MULTIPLE = 4  # columns of a table that the kernels take
OPTIMIZERS = ("rowwise_adagrad", "adagrad", "adam", "sgd")
MISSING = (
    "distributed=sharded needs TorchRec: pip install 'ondevice-recommender[distributed]' && "
    "pip install --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 (docs/cluster.md)"
)


@dataclass(frozen=True)
class TableSpec:
    """One sharded table.

    Args:
        name: its name.
        width: columns in use; the table itself has a multiple of four.
        optimizer: rowwise_adagrad, adagrad, adam (on a GPU) or sgd.
        learning_rate: at the start.
    """

    name: str
    width: int
    optimizer: str
    learning_rate: float

    @property
    def columns(self) -> int:
        return -(-self.width // MULTIPLE) * MULTIPLE


class ShardedTables(nn.Module):
    """Tables of N rows each, looked up together.

    Args:
        num_rows: N.
        specs: the tables.
        processes: among which the rows are divided, in order.
        device: where this process's rows are.

    Raises: UserError: when TorchRec is not installed, an optimizer does not run on the device, or there are too
        few rows for every process to hold some.
    """

    def __init__(
        self, num_rows: int, specs: Sequence[TableSpec], processes: Processes, device: torch.device
    ) -> None:
        super().__init__()
        self.num_rows, self.specs, self.processes, self.device = num_rows, list(specs), processes, device
        for spec in specs:
            if spec.optimizer == "adam" and device.type == "cpu":
                raise ConfigError(
                    "distributed.table_optimizer: adam runs on GPUs alone; use rowwise_adagrad or adagrad"
                )
        if (processes.size - 1) * self.rows_per_process >= num_rows:
            raise ConfigError(
                f"distributed=sharded: {num_rows} rows leave some of {processes.size} processes without any; start "
                "fewer, or use distributed=ddp"
            )
        self._engine = _shard(num_rows, specs, processes, device)
        self._shards = {
            spec.name: _local(self._engine.state_dict()[_weight_name(spec.name)]) for spec in specs
        }
        self._optimizers = dict(zip(self._shards, _optimizers_of(self._engine, specs), strict=True))

    @property
    def rows_per_process(self) -> int:
        """⌈N / W⌉; the last process may hold fewer."""
        return -(-self.num_rows // self.processes.size)

    @property
    def rows(self) -> range:
        """The rows that this process holds."""
        first = self.processes.rank * self.rows_per_process
        return range(first, min(self.num_rows, first + self.rows_per_process))

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        """Some rows of every table, wherever they are; every process calls this at the same time.

        Shape: rows (U,) int64 -> by table (U, width).
        """
        from torchrec import KeyedJaggedTensor

        lengths = torch.tensor([rows.numel()], device=rows.device)
        wanted = KeyedJaggedTensor(keys=["rows"], values=rows, lengths=lengths)
        waiting = {spec.name: self._engine.module[spec.name](wanted) for spec in self.specs}
        gathered = {
            name: (w.wait() if hasattr(w, "wait") else w)["rows"].values() for name, w in waiting.items()
        }
        return {spec.name: gathered[spec.name][:, : spec.width] for spec in self.specs}

    def shard(self, name: str) -> Tensor:
        """This process's rows of a table, live, one line per row."""
        width = next(spec.width for spec in self.specs if spec.name == name)
        return self._shards[name][:, :width]

    def set_learning_rate(self, name: str, rate: float) -> None:
        """From the next step on."""
        optimizer = self._optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()  # which only hands the rate to the kernel

    def state(self) -> dict[str, Tensor]:
        """This process's part of all tables and their optimizers' states, live, by name."""
        state = {spec.name: self._shards[spec.name] for spec in self.specs}
        for name, optimizer in self._optimizers.items():
            for value in optimizer.state_dict()["state"].values():
                for key, tensor in value.items():
                    if hasattr(tensor, "local_shards"):
                        state[f"{name}.{key.rpartition('.')[2]}"] = _local(tensor)
        return state


def _weight_name(name: str) -> str:
    return f"{name}.embeddings.{name}.weight"


def _shard(num_rows: int, specs: Sequence[TableSpec], processes: Processes, device: torch.device) -> Any:
    """The tables as TorchRec has them, on this process's device."""
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)  # a notice about its tracing
    try:
        import fbgemm_gpu  # noqa: F401  # registers the kernels
        from torchrec import EmbeddingCollection, EmbeddingConfig
        from torchrec.distributed import DistributedModelParallel
        from torchrec.distributed.embedding import EmbeddingCollectionSharder
        from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
        from torchrec.distributed.types import ShardingEnv, ShardingPlan
        from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
    except (ImportError, OSError) as error:
        raise MissingPackage(f"{MISSING}: {str(error).splitlines()[0]}") from None

    def collection(spec: TableSpec) -> nn.Module:
        config = EmbeddingConfig(
            name=spec.name, num_embeddings=num_rows, embedding_dim=spec.columns, feature_names=["rows"]
        )
        embeddings = EmbeddingCollection(tables=[config], device=torch.device("meta"))
        kind, options = _optimizer(spec.optimizer)
        apply_optimizer_in_backward(kind, embeddings.parameters(), {"lr": spec.learning_rate, **options})
        return embeddings

    tables = nn.ModuleDict({spec.name: collection(spec) for spec in specs})
    sharder = EmbeddingCollectionSharder()
    local_size = min(processes.size, max(1, processes.local_size))
    plan = {
        name: construct_module_sharding_plan(
            table,
            {name: row_wise(compute_kernel="fused")},
            sharder=sharder,
            world_size=processes.size,
            local_size=local_size,
            device_type=device.type,
        )
        for name, table in tables.items()
    }
    return DistributedModelParallel(
        tables,
        env=ShardingEnv.from_process_group(dist.group.WORLD),
        device=device,
        plan=ShardingPlan(plan=plan),
        sharders=[sharder],
    )


def _optimizer(name: str) -> tuple[Any, dict[str, Any]]:
    from torchrec.optim import Adagrad, Adam, RowWiseAdagrad

    kinds: Mapping[str, tuple[Any, dict[str, Any]]] = {
        "rowwise_adagrad": (RowWiseAdagrad, {"eps": 1e-8}),
        "adagrad": (Adagrad, {"eps": 1e-8}),
        "adam": (Adam, {}),
        "sgd": (torch.optim.SGD, {}),
    }
    return kinds[name]


def _optimizers_of(engine: Any, specs: Sequence[TableSpec]) -> list[Any]:
    """The fused optimizer of each table."""
    fused = dict(engine.fused_optimizer._optims)
    return [next(o for key, o in fused.items() if key.split(".")[0] == spec.name) for spec in specs]


def _local(tensor: Any) -> Tensor:
    """This process's part of a sharded tensor, live."""
    local: Tensor = tensor.local_shards()[0].tensor
    return local
