"""Tables whose rows lie in several processes: 2 and 4 gloo processes against plain tables and against one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from ondevice.config import DistributedConfig, from_dict
from ondevice.distributed.cluster import Cluster, Job, bytes_per_row, estimate, threshold_columns
from ondevice.distributed.descent import ScaledDescent
from ondevice.distributed.initial import InitialRows
from ondevice.distributed.processes import LOST
from ondevice.distributed.recommender import THRESHOLD, WEIGHT, ShardedRecommender, Thresholds
from ondevice.distributed.training import Epochs
from ondevice.embeddings import METHODS
from ondevice.errors import UserError
from ondevice.models import MODELS
from ondevice.recommender import Recommender
from ondevice.training.checkpoint import load_state, save_state
from ondevice.training.fit import train_step
from ondevice.training.optimizers import JointlyScaledSGD
from ondevice.training.pipeline import make_pipeline
from ondevice.training.run import Run
from ondevice.training.sizing import forms_at

from ..training.test_pipeline import lasting
from ..world import make_world
from .forked import joined, run_processes
from .test_ddp import assert_close, torchrun, workers_of

pytest.importorskip(
    "torchrec", reason="sharded tables need TorchRec: docs/cluster.md says how it is installed"
)
pytestmark = pytest.mark.distributed
Make = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")
WORLD = make_world()
ROWS = InitialRows(WORLD.info.num_embeddings, 4, True, 0.3, seed=5)
RATE, THRESHOLD_RATE, STEPS = 0.05, 0.02, 6


def base_model() -> nn.Module:
    torch.manual_seed(3)
    return MODELS["deepfm"](3, 4, hidden=(8,), dropout=0.0, batch_norm=False)


def sharded(by_value: bool = True) -> ShardedRecommender:
    settings = DistributedConfig("sharded", table_optimizer="adagrad")
    thresholds = Thresholds(by_value, -3.0, 0.2, THRESHOLD_RATE)
    return ShardedRecommender(WORLD.info, base_model(), ROWS, settings, RATE, joined(), CPU, thresholds)


def plain(by_value: bool) -> Recommender:
    """The same in one process: two tables under PEP."""
    granularity = "feature-dimension" if by_value else "feature"
    options = {"granularity": granularity, "regime": "budget", "threshold_init": -3.0, "count_prior": 0.2}
    tables = [METHODS["pep"](WORLD.info, dim, **options) for dim in (4, 1)]
    values = ROWS.take(torch.arange(ROWS.num_rows))
    for table, own in zip(tables, values.split([4, 1], 1), strict=True):
        table.weight.data.copy_(own)
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
    found = [t.margins(every, *t.row_parameters()) for t in tables]
    margins = torch.cat([m.flatten() for m in found if m is not None])
    pruned = margins.numel() - 200
    amount = (margins.kthvalue(pruned).values + margins.kthvalue(pruned + 1).values) / 2
    for table in tables:
        table.shift_thresholds(float(amount))
    found = run_processes(size, tmp_path, own_rows, by_value)
    assert [i for part in found for i in part["rows"]] == list(range(ROWS.num_rows))
    close = {"rtol": 1e-4, "atol": 1e-5}  # rounding: the sums run in another order
    weight, s = (torch.cat([part[name] for part in found]) for name in ("weight", "s"))
    torch.testing.assert_close(weight, torch.cat([t.weight.detach() for t in tables], 1), **close)
    torch.testing.assert_close(s, torch.cat([t.s.detach() for t in tables], 1), **close)
    own = whole.state_dict()
    for part in found:
        assert part["kept"] == (before, 200)
        for name, value in part["module"].items():
            torch.testing.assert_close(value, own[name], **close)
    for place, target in enumerate((200, 90)):
        for i, form in enumerate(forms_at(tables, target)):
            sizes = torch.cat([part["sizes"][place][i] for part in found])
            assert torch.equal(sizes.long(), form.row_sizes())


def sketched(gradients: list[Tensor], rows: Tensor) -> list[float]:
    """Estimates over 50 steps, each process holding every W-th gradient."""
    processes = joined()
    descent = ScaledDescent(1, processes)
    found = []
    for descent.step in range(50):
        own = processes.share(*gradients, rows)
        # the mean over processes of W times its share is the sum of the shares
        found.append(descent.square(torch.cat(own[:-1], 1) * processes.size, own[-1]))
    return found


def test_the_sketch_is_the_norm_whatever_the_number_of_processes(tmp_path: Path) -> None:
    rows = torch.randint(0, 40, (400,))
    gradients = [torch.randn(400, 8) * rows[:, None]]
    exact = float(torch.zeros(40, 8).index_add_(0, rows, gradients[0]).square().sum())
    found = [run_processes(size, tmp_path / f"{size}", sketched, gradients, rows)[0] for size in (1, 2, 4)]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-4)
    spread = (2 / 1024) ** 0.5
    assert sum(found[0]) / 50 == pytest.approx(exact, rel=3 * spread)


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
        for found in run_processes(readers, tmp_path / "out", load_epochs, folder):
            assert found == (3, 3, True, [3.0], 1)


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


# Like the configuration that several processes without shards are held to, with an optimizer that tables can have.
EXACT = {
    "model": {"name": "deepfm", "hidden": [8], "dropout": 0.0, "batch_norm": False},
    "training": {"epochs": 3, "patience": 3, "embedding_penalty": 1e-3, "batch_size": 127},
    "search": {"epochs": 3, "threshold_learning_rate": 0.01},
    "retrain": {"teacher": ["dense"], "schedule": "cosine", "max_size": 4, "pairs": 0.5, "ema_decay": 0.9},
    "distributed": {"mode": "sharded", "table_learning_rate": 0.05},
}


def run(values: dict[str, Any], folder: Path, resume: bool = False) -> dict[str, Any]:
    return make_pipeline(from_dict(values), folder, resume=resume).run()


def run_sharded(size: int, values: dict[str, Any], folder: Path, resume: bool = False) -> dict[str, Any]:
    """Metrics of the job in ``size`` processes, which all end with the same."""
    results = run_processes(size, folder.with_name(f"{folder.name} results"), run, values, folder, resume)
    assert all(lasting(result) == lasting(results[0]) for result in results[1:])
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    assert metrics == results[0]
    return metrics


def test_processes_find_what_one_does(tiny_config: Make, tmp_path: Path) -> None:
    """AUC within what rounding does to nearly equal scores; the same rows but for one in a hundred."""
    values = tiny_config(**EXACT)
    one = run_sharded(1, values, tmp_path / "1")
    sizes = load_file(tmp_path / "1" / "search.safetensors")
    for size in (2, 4):
        many = run_sharded(size, values, tmp_path / f"{size}")
        assert_close(one, many)
        for name, found in load_file(tmp_path / f"{size}" / "search.safetensors").items():
            assert found.dtype == torch.uint8
            assert float((found == sizes[name]).float().mean()) >= 0.99
    assert one["dense"]["valid_auc"] > 0.55


def test_what_is_kept_is_a_run_that_can_be_exported(tiny_config: Make, tmp_path: Path) -> None:
    """Its vocabulary is that of the kept rows, and the program agrees with what was measured."""
    pytest.importorskip("executorch", reason="exporting needs the extra ondevice[export]")
    from ondevice.program.export_run import export_run

    values = tiny_config(**EXACT)
    values["search"] = {**values["search"], "budgets": [100]}
    metrics = run_sharded(2, values, tmp_path / "run")
    opened = Run(tmp_path / "run")
    whole, kept = WORLD.info.num_embeddings, opened.vocabulary.num_embeddings
    assert kept < whole
    assert opened.dataset().vocabulary == opened.vocabulary
    assert opened.compact("100").embedding.num_embeddings == kept
    for exported in export_run(tmp_path / "run"):
        entry = metrics["budgets"][exported.bundle.path.name]
        assert exported.parity["test_auc_eager"] == pytest.approx(entry["test_auc"], abs=1e-9)
        assert exported.parity["test_auc_pte"] == pytest.approx(entry["test_auc"], abs=0.01)
    with pytest.raises(UserError, match="the dense model was trained with distributed=sharded"):
        opened.dense()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds a job's processes in /proc")
def test_a_killed_job_goes_on_with_another_number_of_processes(tiny_config: Make, tmp_path: Path) -> None:
    values = tiny_config(**EXACT)
    values["training"] = {**values["training"], "epochs": 5, "patience": 5}
    values["search"] = {**values["search"], "epochs": 5}
    values["retrain"] = {**values["retrain"], "epochs": 2}
    whole = run_sharded(2, values, tmp_path / "whole")
    folder, config = tmp_path / "run", tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(values))
    for phase, size in (("dense", 2), ("search", 2)):
        job = torchrun(size, str(config), f"run.output={folder}", "--resume")
        latest, deadline = folder / "checkpoints" / phase / "latest.json", time.monotonic() + 300
        while not latest.exists():
            assert job.poll() is None, job.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(workers_of(job)[1], signal.SIGKILL)
        errors = job.communicate(timeout=120)[1]
        assert job.returncode == 1
        assert errors.count("error:") == 1, errors
        assert f"error: {LOST}" in errors.splitlines()
        state = (
            folder / "checkpoints" / phase / f"epoch-{json.loads(latest.read_text())['epoch']}" / "state.pt"
        )
        save_state(
            state, {**load_state(state, CPU), "seconds": 1e6}
        )  # to be told from a job that begins anew
    resumed = run_sharded(4, values, folder, resume=True)
    assert resumed["dense"]["seconds"] > 1e6
    assert resumed["search"]["seconds"] > 1e6
    assert_close(whole, resumed)


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
    from ondevice.distributed.checkpoint import gather_rows
    from ondevice.embeddings import TableInfo

    info = TableInfo(torch.tensor([0, num_rows]), torch.ones(num_rows, dtype=torch.int64))
    rows = InitialRows(num_rows, dim, True, None, seed=0)
    thresholds = Thresholds(True, -7.0, 1.0, 0.01)
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
    found = run_processes(2, tmp_path, bytes_of_a_step, by_value)
    asked, sent = sum(rows for rows, _ in found), sum(size for _, size in found)
    method = "pep feature-dimension" if by_value else "pep feature"
    job = Job(rows=ROWS.num_rows, dim=4, fields=1, batch=asked, parameters=0, distinct=1.0)
    alone = estimate(job, Cluster(), 2, method, "adagrad").traffic
    summed = 8 * 1024 * threshold_columns(method, 4) / 2  # the sketch, in another exchange
    assert sent == pytest.approx(2 * 2 * (alone - summed), rel=0.1)


def bytes_held(optimizer: str) -> float:
    settings = DistributedConfig("sharded", table_optimizer=optimizer)
    thresholds = Thresholds(True, -3.0, 0.2, 0.1)
    recommender = ShardedRecommender(
        WORLD.info, base_model(), ROWS, settings, RATE, joined(), CPU, thresholds
    )
    return sum(t.untyped_storage().nbytes() for t in recommender.store.state().values()) / ROWS.num_rows


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad"])
def test_paper_and_memory_agree(tmp_path: Path, optimizer: str) -> None:
    (held,) = run_processes(1, tmp_path, bytes_held, optimizer)
    assert held == bytes_per_row("pep feature-dimension", optimizer, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": {"name": "uniform"}}, "method: got 'uniform'; sharded tables know pep alone"),
        ({"method": {"name": "pep", "regime": "data"}}, "method.regime: sharded thresholds follow a budget"),
        ({"method": {"name": "pep", "granularity": "field"}}, "granularity: got 'field'"),
        ({"retrain": {"start": "dense"}}, "retrain.start: trained tables are not gathered"),
        ({"training": {"ema_decay": 0.9}}, "training.ema_decay: an average touches every row"),
        ({"search": {"weight_decay": 1e-5}}, "search.weight_decay: it touches every row"),
        ({"retrain": {"form": "positions"}}, "retrain.form: sharded tables end in sizes"),
        ({"embedding": {"dim": 256}}, "embedding.dim: got 256; at most 255"),
        ({"embedding": {"first_order": "uniform"}}, "first-order weights share the sharded table"),
        ({}, "start the job with torchrun"),
    ],
)
def test_what_sharded_tables_cannot_do_is_told_at_once(
    tiny_config: Make, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    values = tiny_config(**{"distributed": {"mode": "sharded"}, **change})
    with pytest.raises(UserError, match=message):
        make_pipeline(from_dict(values), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def refused(values: dict[str, Any], folder: Path, resume: bool) -> str:
    try:
        run(values, folder, resume)
    except UserError as error:
        return str(error)
    return ""


def test_what_a_started_run_cannot_become(tiny_config: Make, tmp_path: Path) -> None:
    values = tiny_config(**EXACT)
    run_sharded(2, values, tmp_path / "run")
    more = {**values, "search": {**values["search"], "budgets": ["50%", 60]}}
    told = run_processes(2, tmp_path / "out", refused, more, tmp_path / "run", True)
    assert all("sharded tables are not searched again for another budget" in text for text in told)
    with pytest.raises(UserError, match=r"was started with distributed.mode='sharded', not 'none'"):
        run({**values, "distributed": "none"}, tmp_path / "run", resume=True)
    alone = {**values, "distributed": {**values["distributed"], "table_optimizer": "adam"}}
    told = run_processes(2, tmp_path / "out", refused, alone, tmp_path / "other", False)
    assert all("adam runs on GPUs alone" in text for text in told)
