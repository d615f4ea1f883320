"""Other runs as peers: which bundles they give, how they stand beside ours, and the picture of all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ondevice
from ondevice.bench.peers.compare import measure_peers
from ondevice.bench.peers.figure import peers_figure
from ondevice.bench.peers.runs import against, other_bundles
from ondevice.bench.settings import Settings
from ondevice.errors import UserError
from ondevice.run.directory import Run

Make = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def runs(
    table_files: tuple[Path, Path], session_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A run by frequency, and peers: the hashing trick and positions."""
    schema, path = table_files
    training = {"epochs": 1, "batch_size": 128, "learning_rate": 0.01}
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(session_cache))
        for name, store in (("frequency", "int8"), ("hashing", "int8"), ("magnitude", "positions")):
            values: dict[str, Any] = {
                "data": {"name": "table", "schema": str(schema), "path": str(path)},
                "model": {"name": "fm"},
                "embedding": {"dim": 4},
                "train": training,
                "compact": {
                    "budgets": [100],
                    "endpoints": ["forward"],
                    "sizes": name,
                    "store": {"name": store, **({"max_size": 4} if name == "frequency" else {})},
                    "train": training,
                },
                "run": {"device": "cpu", "progress": False},
            }
            made[name] = tmp_path_factory.mktemp("peers") / name
            ondevice.train(values, made[name])
    return made


def test_bundles_of_other_runs_are_named_by_what_they_are(runs: dict[str, Path], cache: Path) -> None:
    said: list[str] = []
    paths = [str(runs["hashing"]), str(runs["magnitude"])]
    result = other_bundles(paths, Run(runs["frequency"]), said.append)
    assert list(result) == ["hashing 100", "magnitude csr 100"]
    assert result["magnitude csr 100"].manifest["layout"] == "csr"
    assert len(said) == 2
    again = other_bundles([*paths, paths[0]], Run(runs["frequency"]), said.append)
    assert list(again)[2] == "hashing 100 (hashing)"
    assert len(said) == 2


def test_runs_on_other_data_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "metrics.json"):
        (tmp_path / "run" / name).write_text((runs["hashing"] / name).read_text())
    (tmp_path / "run" / "fingerprint").write_text("0" * 64)
    with pytest.raises(UserError, match=r"--also .*: trained on other data or another split than"):
        other_bundles([str(tmp_path / "run")], Run(runs["frequency"]))


def test_all_peers_are_measured_together(runs: dict[str, Path], cache: Path, tmp_path: Path) -> None:
    report = measure_peers(
        runs["frequency"],
        output=tmp_path / "peers.json",
        also=[str(runs["hashing"])],
        settings=Settings(
            rounds=2, cold_starts=1, candidates=(1, 8), threads=(1,), baselines=("fp32", "int8")
        ),
        say=lambda text: None,
    )
    assert {"executorch fp32", "executorch int8", "ondevice 100", "hashing 100"} <= set(report["programs"])
    assert report["ours"] == ["ondevice 100"]
    hashing = report["programs"]["hashing 100"]
    eager = Run(runs["hashing"]).metrics["budgets"]["100"]["test_auc"]
    assert hashing["test_auc"] == pytest.approx(
        eager, abs=0.02
    )  # by way of the hash that the bundle's reader computes
    assert hashing["bytes"] > 1000
    assert hashing["latency_us"]["8"]["p50"] > 0
    assert json.loads((tmp_path / "peers.json").read_text())["against"].keys() == report["against"].keys()
    assert "| hashing 100 |" in (tmp_path / "peers.md").read_text()
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
    texts = [text.get_text() for text in peers_figure(report).axes[0].get_yticklabels()]
    assert sorted(texts) == sorted(report["programs"])


def test_peers_stand_beside_ours_at_their_bytes_and_at_their_auc() -> None:
    programs = {
        "small": {"bytes": 40, "test_auc": 0.89},
        "large": {"bytes": 90, "test_auc": 0.90},
        "peer": {"bytes": 100, "test_auc": 0.895},
        "tiny": {"bytes": 30, "test_auc": 0.80},
        "best": {"bytes": 1000, "test_auc": 0.91},
    }
    result = against(programs, ["small", "large"])
    assert set(result) == {"peer", "tiny", "best"}
    assert result["peer"]["at_bytes"] == {"program": "large", "auc_gain": pytest.approx(0.005)}
    assert result["peer"]["at_auc"] == {"program": "large", "times_smaller": pytest.approx(100 / 90)}
    assert result["tiny"]["at_bytes"] is None
    assert result["tiny"]["at_auc"] == {"program": "small", "times_smaller": pytest.approx(0.75)}
    assert result["best"]["at_auc"] is None
    assert result["best"]["at_bytes"]["program"] == "large"
