"""Tables whose rows lie in several processes: 1, 2 and 4 gloo processes against plain tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.cluster import Cluster, Job, bytes_per_row, estimate, threshold_columns
from ondevice.config.sections import DistributedConfig
from ondevice.errors import UserError
from ondevice.methods import METHODS
from ondevice.methods.base import forms_at
from ondevice.methods.sizes.pep import PEPRows
from ondevice.models import MODELS
from ondevice.recommender import Recommender
from ondevice.sharded.descent import ScaledDescent
from ondevice.sharded.initial import InitialRows
from ondevice.sharded.recommender import THRESHOLD, WEIGHT, ShardedRecommender, Thresholds
from ondevice.sharded.training import Epochs
from ondevice.training.optimizers.jointly_scaled import JointlyScaledSGD
from ondevice.training.step import train_step

from ..forked import joined, run_processes
from ..world import make_world

pytest.importorskip(
    "torchrec", reason="sharded tables need TorchRec: docs/cluster.md says how it is installed"
)
pytestmark = pytest.mark.distributed
CPU = torch.device("cpu")
WORLD = make_world()
ROWS = InitialRows(WORLD.info.num_embeddings, 4, True, 0.3, seed=5)
RATE, THRESHOLD_RATE, STEPS = 0.05, 0.02, 6


def base_model() -> nn.Module:
    torch.manual_seed(3)
    return MODELS["deepfm"](3, 4, hidden=(8,), dropout=0.0, batch_norm=False)


def sharded(by_value: bool = True) -> ShardedRecommender:
    settings = DistributedConfig("sharded", table_optimizer="adagrad")
    thresholds = Thresholds(PEPRows(by_value, -3.0, 0.2), THRESHOLD_RATE)
    return ShardedRecommender(WORLD.info, base_model(), ROWS, settings, RATE, joined(), CPU, thresholds)


def plain(by_value: bool) -> Recommender:
    """The same in one process: two tables under PEP."""
    granularity = "feature-dimension" if by_value else "feature"
    options = {"granularity": granularity, "regime": "budget", "threshold_init": -3.0, "count_prior": 0.2}
    tables = [METHODS["pep"](WORLD.info, dim, **options) for dim in (4, 1)]
    values = ROWS.take(torch.arange(ROWS.num_rows))
    for table, part in zip(tables, values.split([4, 1], 1), strict=True):
        table.weight.data.copy_(part)
    return Recommender(*tables, base_model())


def exact_square(descent: ScaledDescent, gradient: Tensor, rows: Tensor) -> float:
    """What `ScaledDescent.square` estimates."""
    whole = torch.zeros(ROWS.num_rows, gradient.shape[1]).index_add_(0, rows, gradient)
    return float((descent.processes.total(whole) / descent.processes.size).square().sum())


def batches() -> list[tuple[Tensor, Tensor]]:
    return [(ids, labels) for _, ids, labels in WORLD.batches(batch_size=150).epoch(0)][:STEPS]


def own_rows(by_value: bool) -> dict[str, Any]:
    """Some steps, and then what a search asks for; each process returns its rows."""
    ScaledDescent.square = exact_square  # type: ignore[method-assign]
    recommender = sharded(by_value)
    optimizer = torch.optim.Adam(recommender.parameters(), lr=0.01)
    for ids, labels in batches():
        (targets,) = recommender.processes.share(labels)
        train_step(
            recommender, [optimizer], ids, targets, embedding_penalty=1e-2, processes=recommender.processes
        )
    kept = recommender.num_kept()
    recommender.keep(200)
    return {
        "rows": recommender.store.rows,
        "weight": recommender.store.shard(WEIGHT).clone(),
        "s": recommender.store.shard(THRESHOLD).clone(),
        "module": recommender.state_dict(),
        "kept": (kept, recommender.num_kept()),
        "sizes": [recommender.sizes_at(target) for target in (200, 90)],
    }


@pytest.mark.parametrize("by_value", [True, False])
@pytest.mark.parametrize("size", [2, 4])
def test_steps_are_those_of_whole_tables(tmp_path: Path, size: int, by_value: bool) -> None:
    """Weights by Adagrad, thresholds by one scale for all, against PyTorch's optimizer and whole tables."""
    whole = plain(by_value)
    tables, special = whole.tables(), [t.s for t in whole.tables()]
    adagrad = torch.optim.Adagrad([t.weight for t in tables], lr=RATE, eps=1e-8)
    rest = [p for n, p in whole.named_parameters() if n.startswith(("model", "bias"))]
    optimizers = [torch.optim.Adam(rest, lr=0.01), adagrad, JointlyScaledSGD(special, lr=THRESHOLD_RATE)]
    for ids, labels in batches():
        train_step(whole, optimizers, ids, labels, embedding_penalty=1e-2)
    before = whole.num_kept()
    every = torch.arange(ROWS.num_rows)
    result = [t.margins(every, *t.row_parameters()) for t in tables]
    margins = torch.cat([m.flatten() for m in result if m is not None])
    pruned = margins.numel() - 200
    amount = (margins.kthvalue(pruned).values + margins.kthvalue(pruned + 1).values) / 2
    for table in tables:
        table.shift_thresholds(float(amount))
    result = run_processes(size, tmp_path, own_rows, by_value)
    assert [i for part in result for i in part["rows"]] == list(range(ROWS.num_rows))
    close = {"rtol": 1e-4, "atol": 1e-5}  # rounding: the sums run in another order
    weight, s = (torch.cat([part[name] for part in result]) for name in ("weight", "s"))
    torch.testing.assert_close(weight, torch.cat([t.weight.detach() for t in tables], 1), **close)
    torch.testing.assert_close(s, torch.cat([t.s.detach() for t in tables], 1), **close)
    state = whole.state_dict()
    for part in result:
        assert part["kept"] == (before, 200)
        for name, value in part["module"].items():
            torch.testing.assert_close(value, state[name], **close)
    for place, target in enumerate((200, 90)):
        for i, form in enumerate(forms_at(tables, target)):
            sizes = torch.cat([part["sizes"][place][i] for part in result])
            assert torch.equal(sizes.long(), form.row_sizes())


def sketched(gradients: list[Tensor], rows: Tensor) -> list[float]:
    """Estimates over 50 steps, each process holding every W-th gradient."""
    processes = joined()
    descent = ScaledDescent(1, processes)
    result = []
    for descent.step in range(50):
        local = processes.share(*gradients, rows)
        # the mean over processes of W times its share is the sum of the shares
        result.append(descent.square(torch.cat(local[:-1], 1) * processes.size, local[-1]))
    return result


def test_the_sketch_is_the_norm_whatever_the_number_of_processes(tmp_path: Path) -> None:
    rows = torch.randint(0, 40, (400,))
    gradients = [torch.randn(400, 8) * rows[:, None]]
    exact = float(torch.zeros(40, 8).index_add_(0, rows, gradients[0]).square().sum())
    result = [run_processes(size, tmp_path / f"{size}", sketched, gradients, rows)[0] for size in (1, 2, 4)]
    for other in result[1:]:
        assert other == pytest.approx(result[0], rel=1e-4)
    spread = (2 / 1024) ** 0.5
    assert sum(result[0]) / 50 == pytest.approx(exact, rel=3 * spread)


def test_initial_rows_do_not_depend_on_who_makes_them() -> None:
    rows = InitialRows(40_000, 4, True, None, seed=1)
    whole = rows.take(torch.arange(40_000))
    for first, last in ((0, 13_334), (13_334, 26_668), (26_668, 40_000)):
        shard = torch.empty(last - first, 5)
        rows.fill_(shard, first)
        assert torch.equal(shard, whole[first:last])
    some = torch.tensor([0, 16_383, 16_384, 39_999])
    assert torch.equal(rows.take(some), whole[some])
    assert float(whole[:, :4].abs().max()) <= (6 / 40_004) ** 0.5
    assert float(whole[:, 4].abs().max()) <= (6 / 40_001) ** 0.5
    assert len(whole.unique(dim=0)) == 40_000


def save_epochs(folder: Path) -> list[str]:
    recommender = sharded()
    epochs = Epochs(folder, recommender)
    recommender.store.shard(WEIGHT).copy_(torch.tensor(recommender.store.rows).float()[:, None].expand(-1, 5))
    for epoch in (1, 2, 3):
        recommender.store.shard(THRESHOLD).fill_(epoch)
        recommender.descent.step = epoch
        more = {"sizes": torch.tensor(recommender.store.rows, dtype=torch.uint8)}
        epochs.save(epoch, 1, {"note": epoch}, more)
    return sorted(path.name for path in folder.iterdir())


def load_epochs(folder: Path) -> Any:
    recommender = sharded()
    epochs = Epochs(folder, recommender)
    latest = epochs.latest()
    state = epochs.load(latest)
    rows = torch.tensor(recommender.store.rows)
    sizes = torch.zeros(len(rows), dtype=torch.uint8)
    epochs.load_rows(latest, {"sizes": sizes})
    same = torch.equal(recommender.store.shard(WEIGHT), rows.float()[:, None].expand(-1, 5))
    same = same and torch.equal(sizes, rows.to(torch.uint8))
    thresholds = recommender.store.shard(THRESHOLD).unique().tolist()
    epochs.load(1, only_weights=True)
    assert recommender.store.shard(THRESHOLD).unique().tolist() == thresholds  # weights alone were read
    return latest, state["note"], same, thresholds, recommender.descent.step


def test_checkpoints_are_read_by_another_number_of_processes(tmp_path: Path) -> None:
    folder = tmp_path / "epochs"
    for writers, readers in ((2, 4), (4, 1), (1, 3)):
        names = run_processes(writers, tmp_path / "out", save_epochs, folder)[0]
        assert names == ["epoch-1", "epoch-3", "latest.json"]
        for result in run_processes(readers, tmp_path / "out", load_epochs, folder):
            assert result == (3, 3, True, [3.0], 1)


def load_damaged(folder: Path) -> str:
    try:
        load_epochs(folder)
    except UserError as error:
        return str(error)
    return ""


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "epochs"
    run_processes(2, tmp_path / "out", save_epochs, folder)
    shard = next((folder / "epoch-3" / "rows").glob("shard-00002*"))
    shard.write_bytes(shard.read_bytes()[:100])
    told = run_processes(2, tmp_path / "out", load_damaged, folder)
    assert all(
        "epoch-3/rows: not a whole checkpoint" in text and "to train that phase anew" in text for text in told
    )


LARGEST: list[int] = []


def watched(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        for argument in [*arguments, *options.values()]:
            parts = argument if isinstance(argument, list) else [argument]
            LARGEST.append(sum(p.numel() * p.element_size() for p in parts if isinstance(p, Tensor)))
        return function(*arguments, **options)

    return call


def search_of_many_rows(num_rows: int, dim: int) -> int:
    """Bytes of the largest exchange while thresholds are shifted and sizes found."""
    from ondevice.forms.table import TableInfo
    from ondevice.sharded.checkpoint import gather_rows

    info = TableInfo(torch.tensor([0, num_rows]), torch.ones(num_rows, dtype=torch.int64))
    rows = InitialRows(num_rows, dim, True, None, seed=0)
    thresholds = Thresholds(PEPRows(True, -7.0, 1.0), 0.01)
    recommender = ShardedRecommender(
        info, base_model(), rows, DistributedConfig("sharded"), 0.1, joined(), CPU, thresholds
    )
    for name in ("all_reduce", "all_gather", "gather", "all_to_all_single", "broadcast"):
        setattr(dist, name, watched(getattr(dist, name)))
    recommender.keep(num_rows)
    for part in recommender.sizes_at(num_rows):
        gather_rows(part, recommender.store)
    return max(LARGEST)


def test_no_process_sees_a_whole_table(tmp_path: Path) -> None:
    """A byte for each row is the most that a search sends anywhere: a 64th of 16 float32."""
    num_rows = 100_000
    assert max(run_processes(2, tmp_path, search_of_many_rows, num_rows, 16)) <= num_rows


def bytes_of_a_step(by_value: bool) -> tuple[int, int]:
    """Distinct rows of the own share of a batch, and what is sent for them, also to this process itself."""
    recommender = sharded(by_value)
    ids, labels = batches()[0]
    sent = []
    exchange = dist.all_to_all_single

    def counted(output: Tensor, input: Tensor, *more: Any, **options: Any) -> Any:
        sent.append(input.numel() * input.element_size())
        return exchange(output, input, *more, **options)

    dist.all_to_all_single = counted
    (targets,) = recommender.processes.share(labels)
    train_step(recommender, [], ids, targets, processes=recommender.processes)
    dist.all_to_all_single = exchange
    return len(recommender.processes.share(ids)[0].unique()), sum(sent)


@pytest.mark.parametrize("by_value", [True, False])
def test_paper_and_exchanges_agree(tmp_path: Path, by_value: bool) -> None:
    """What cluster.py takes for the traffic is what is sent, but for some integers that say how much comes."""
    result = run_processes(2, tmp_path, bytes_of_a_step, by_value)
    asked, sent = sum(rows for rows, _ in result), sum(size for _, size in result)
    method = "pep feature-dimension" if by_value else "pep feature"
    job = Job(rows=ROWS.num_rows, dim=4, fields=1, batch=asked, parameters=0, distinct=1.0)
    alone = estimate(job, Cluster(), 2, method, "adagrad").traffic
    summed = 8 * 1024 * threshold_columns(method, 4) / 2  # the sketch, in another exchange
    assert sent == pytest.approx(2 * 2 * (alone - summed), rel=0.1)


def bytes_held(optimizer: str) -> float:
    settings = DistributedConfig("sharded", table_optimizer=optimizer)
    thresholds = Thresholds(PEPRows(True, -3.0, 0.2), 0.1)
    recommender = ShardedRecommender(
        WORLD.info, base_model(), ROWS, settings, RATE, joined(), CPU, thresholds
    )
    return sum(t.untyped_storage().nbytes() for t in recommender.store.state().values()) / ROWS.num_rows


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad"])
def test_paper_and_memory_agree(tmp_path: Path, optimizer: str) -> None:
    (held,) = run_processes(1, tmp_path, bytes_held, optimizer)
    assert held == bytes_per_row("pep feature-dimension", optimizer, 4)
