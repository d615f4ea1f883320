"""train/run.py as a person meets it: one line for a mistake, nothing lost, and all names listed."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ondevice.config.file import load
from ondevice.config.stores import STORES
from ondevice.data import DATASETS
from ondevice.methods import METHODS
from ondevice.models import MODELS
from ondevice.registry import Registry

from .data.preparation.rows import real_sample

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = "train/configs/movielens_1m_deepfm_pep.yaml"
Train = Callable[..., "Result"]


@dataclass
class Result:
    """How a script ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Train:
    """The script, run in this process: starting one takes seconds."""
    monkeypatch.chdir(ROOT)

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["train/run.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path("train/run.py", run_name="__main__")
        said = capsys.readouterr()
        return Result(int(str(ended.value.code)), said.out, said.err)

    return run


def process(*arguments: str) -> Result:
    """Python, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    return Result(ended.returncode, ended.stdout, ended.stderr)


def assert_one_line(result: Result, message: str) -> None:
    assert result.returncode == 2, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]


@pytest.fixture
def finished(tiny_config: Callable[..., dict[str, Any]], tmp_path: Path) -> tuple[Path, Path]:
    """A configuration of one epoch, and the directory of its run."""
    path = tmp_path / "tiny.yaml"
    values = tiny_config(train={"epochs": 1}, compact={"budgets": [100]})
    path.write_text(yaml.safe_dump(values))
    return path, tmp_path / "run"


def test_names_are_listed_with_a_line_each(train: Train) -> None:
    result = train("--list")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    registries: dict[str, Registry[Any]] = {
        "data sets": DATASETS,
        "models": MODELS,
        "methods": METHODS,
        "stores": STORES,
    }
    for title, registry in registries.items():
        start = lines.index(f"{title}:")
        listed = lines[start + 1 : start + 1 + len(list(registry))]
        assert [line.split()[0] for line in listed] == list(registry)
        assert all(len(line.split()) > 3 for line in listed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no config given: name a YAML file (train/configs/ has some), or --list"),
        (["nosuch.yaml"], "nosuch.yaml: no such file; the configs that come along are in train/configs/"),
        ([EXAMPLE, "trainig.epochs=3"], "no such section 'trainig' (did you mean 'train'?"),
        ([EXAMPLE, "train.epoch=3"], "train.epoch: no such key (did you mean 'epochs'?"),
        (
            [EXAMPLE, "model.hiden=[8]"],
            "model.hiden: model 'deepfm' has no such option (did you mean 'hidden'?",
        ),
        ([EXAMPLE, "model.name=deepfn"], "unknown model 'deepfn' (did you mean 'deepfm'?"),
        ([EXAMPLE, "compact.sizes=pepp"], "unknown method 'pepp' (did you mean 'pep'?"),
        ([EXAMPLE, "data.name=movielens"], "unknown data set 'movielens' (did you mean 'movielens_1"),
        (
            [EXAMPLE, "compact.sizes.regime=dekay"],
            "compact.sizes.regime: unknown 'dekay' (did you mean 'decay'?",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and value else None,
)
def test_a_mistake_is_one_line(train: Train, tmp_path: Path, arguments: list[str], message: str) -> None:
    given = [*arguments, f"run.output={tmp_path / 'run'}"] if len(arguments) > 1 else arguments
    assert_one_line(train(*given), message)
    assert not (tmp_path / "run").exists()


def test_in_a_process_of_its_own_a_mistake_is_one_line_too() -> None:
    assert_one_line(process("train/run.py", "nosuch.yaml"), "nosuch.yaml: no such file")


def test_a_run_and_what_is_said_of_it(train: Train, finished: tuple[Path, Path]) -> None:
    config, folder = finished
    result = train(str(config), f"run.output={folder}", "run.progress=true")
    assert result.returncode == 0, result.stderr
    metrics = json.loads((folder / "metrics.json").read_text())
    assert f"run directory: {folder}" in result.stdout
    (dense,) = (line.split() for line in result.stdout.splitlines() if line.startswith("dense "))
    (compact,) = (line.split() for line in result.stdout.splitlines() if line.startswith("100 "))
    assert dense[3] == f"{metrics['dense']['test_auc']:.4f}"
    assert compact[1] == str(metrics["compact"]["kept_parameters"])
    for said in ("dense: epoch 1, loss", "search: epoch 2", "kept ", "retrain-100: epoch 1", "rows/s"):
        assert said in result.stderr
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}

    again = train(str(config), f"run.output={folder}")
    assert_one_line(again, "already holds a run; add --resume, or name another run.output=DIR")
    changed = train(str(config), f"run.output={folder}", "--resume", "train.epochs=5")
    assert_one_line(changed, "was started with train.epochs=1, not 5; resume with the same config")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before

    resumed = train(str(config), f"run.output={folder}", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((folder / "metrics.json").read_text()) == metrics


def test_a_damaged_checkpoint_is_named(train: Train, finished: tuple[Path, Path]) -> None:
    config, folder = finished
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "dense.pt").write_bytes(b"half of a checkpoi")
    assert_one_line(train(str(config), f"run.output={folder}"), "not empty and not a run directory")
    (folder / "config.yaml").write_text(yaml.safe_dump(load(config).to_dict()))
    result = train(str(config), f"run.output={folder}", "--resume")
    assert_one_line(result, "checkpoints/dense.pt: not a readable checkpoint")
    assert (folder / "checkpoints" / "dense.pt").read_bytes() == b"half of a checkpoi"


@pytest.mark.parametrize(("name", "sample"), [("criteo", "criteo_sample.tsv"), ("avazu", "avazu_sample.csv")])
def test_a_few_steps_on_real_clicks(
    train: Train, tmp_path: Path, cache: Path, name: str, sample: str
) -> None:
    """The config that comes along as it is, but for a smaller batch on the 10,000 rows."""
    pytest.importorskip("pyarrow", reason="large data are read with pyarrow")
    folder = tmp_path / "run"
    result = train(
        f"train/configs/{name}_deepfm_pep.yaml",
        f"data.path={real_sample(sample)}",
        f"run.output={folder}",
        "run.device=cpu",
        *(f"{section}.batch_size=400" for section in ("train", "compact.sizes", "compact.train")),
        *(f"{section}.epochs=1" for section in ("train", "compact.sizes", "compact.train")),
    )
    assert result.returncode == 0, result.stderr
    metrics = json.loads((folder / "metrics.json").read_text())
    assert sum(metrics["rows"].values()) in (9_999, 10_000)
    assert metrics["dense"]["valid_auc"] > 0.5
    assert 0 < metrics["compact"]["sparsity"] < 1


def test_training_needs_nothing_of_export(finished: tuple[Path, Path]) -> None:
    """A cloud image has neither torchao nor ExecuTorch, and maybe no pandas, TensorBoard or Matplotlib."""
    config, folder = finished
    code = f"""
import sys
for name in ("torchao", "executorch", "pandas", "tensorboard", "matplotlib", "pyarrow"):
    sys.modules[name] = None
import ondevice, ondevice.run.pipeline
run = ondevice.train({str(config)!r}, {str(folder)!r})
print(run.metrics["compact"]["kept_parameters"])
"""
    result = process("-c", code)
    assert result.returncode == 0, result.stderr
    assert 0 < int(result.stdout.split()[-1]) <= 100
    assert not (folder / "events").exists()
