"""Other runtimes' programs of a small dense model against the model; what is said where they are not installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ondevice.bench.dense.baselines import DenseProgram
from ondevice.bench.measure.worker import run_jobs
from ondevice.bench.measure.workload import write_inputs
from ondevice.bench.peers import compare
from ondevice.bench.peers.compare import score, text_table
from ondevice.bench.peers.measured import EXECUTORCH, LITERT, Peer
from ondevice.bench.peers.targets import make_programs, peers
from ondevice.errors import UserError
from ondevice.recommender import Recommender

from ..conftest import FIELD_SIZES, rows_of

ROWS = (1, 20)


@pytest.fixture(params=list(peers()), scope="module")
def made(
    request: pytest.FixtureRequest, dense: Recommender, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Peer]:
    """The fp32 and int8 programs of one runtime."""
    missing = peers()[request.param].missing()
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (pip install 'ondevice-recommender[peers]')")
    folder = tmp_path_factory.mktemp(request.param)
    return make_programs(request.param, DenseProgram(dense), len(FIELD_SIZES), ROWS, folder)


@torch.no_grad()
def test_programs_score_as_the_model(made: dict[str, Peer], dense: Recommender) -> None:
    ids = rows_of(dense, 50)  # two calls of 20 and one that is filled up
    expected = torch.sigmoid(dense(ids)).numpy()
    for name, peer in made.items():
        got = score(peer, ids.numpy(), ROWS[-1])
        np.testing.assert_allclose(got, expected, atol=1e-5 if name.endswith("fp32") else 0.05)
        if name.endswith("int8"):
            assert np.abs(got - expected).max() > 1e-5


def test_litert_has_a_file_for_each_number_of_rows(made: dict[str, Peer]) -> None:
    for peer in made.values():
        assert len({peer.file(count) for count in ROWS}) == (2 if peer.runtime == LITERT else 1)


def test_measured_in_processes_of_their_own(
    made: dict[str, Peer], programs: dict[str, Path], dense: Recommender, tmp_path: Path
) -> None:
    everything = {"executorch int8": Peer(EXECUTORCH, {0: programs["int8"]}), **made}
    inputs = tmp_path / "inputs.safetensors"
    requests = [(rows_of(dense, 20, seed),) for seed in range(2)]
    write_inputs(inputs, {(name, "forward", "20"): requests for name in everything})
    group = {name: {"runtime": p.runtime, "file": str(p.file(20))} for name, p in everything.items()}
    common = {"inputs": str(inputs), "threads": 1}
    latency = {"task": "latency", "groups": {"20": group}, "rounds": 2, "reference": "executorch int8"}
    name = next(iter(made))
    cold = {"task": "cold", "name": name, "group": "20", **group[name]}
    jobs = [common | latency, common | cold]
    timed, started = run_jobs(jobs, module="ondevice.bench.peers.worker")
    assert set(timed["20"]) == set(everything)
    assert timed["20"]["executorch int8"]["over_reference"] == 1
    assert all(each["p95"] >= each["p50"] > 0 for each in timed["20"].values())
    assert started["added_rss_bytes"] > 0
    assert started["load_ms"] > 0


def test_without_other_runtimes_it_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("data: {name: movielens_1m}\n")
    (tmp_path / "metrics.json").write_text(json.dumps({"seed": 0}))
    for target in peers().values():
        monkeypatch.setattr(type(target), "packages", ("a-package-that-nobody-has",))
    with pytest.raises(
        UserError, match=r"no other runtime is installed; pip install 'ondevice-recommender\[peers\]'"
    ):
        compare.measure_peers(tmp_path)


def test_a_file_for_each_number_of_rows_or_for_any() -> None:
    assert Peer(LITERT, {1: Path("a"), 20: Path("b")}).file(20) == Path("b")
    assert Peer(EXECUTORCH, {0: Path("c")}).file(20) == Path("c")
    with pytest.raises(KeyError):
        Peer(LITERT, {1: Path("a")}).file(20)


def test_table() -> None:
    entry = {
        "bytes": 12345,
        "deflated_bytes": 10000,
        "test_auc": 0.89994,
        "latency_us": {"1": {"p50": 9.4}, "100": {"p50": 1234.5}},
        "memory": {"added_rss_bytes": 2_500_000},
    }
    report = {
        "settings": {"candidates": [1, 100]},
        "programs": {"ondevice 64KB": entry, "onnx int8": entry},
        "against": {
            "onnx int8": {
                "at_bytes": {"program": "ondevice 64KB", "auc_gain": -0.00123},
                "at_auc": None,
            }
        },
        "left_out": {"litert": "litert_torch not installed"},
    }
    assert text_table(report).splitlines()[-4:] == [
        "| ondevice 64KB | 12,345 | 10,000 | 0.8999 | 9 / 1,234 | 2.50 MB |  |  |",
        "| onnx int8 | 12,345 | 10,000 | 0.8999 | 9 / 1,234 | 2.50 MB | -0.0012 | none |",
        "",
        "litert left out: litert_torch not installed",
    ]
