"""A run is tied to its data by content: files may be touched, moved and copied, and a bundle needs the run alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ondevice
from ondevice.errors import UserError
from ondevice.run.directory import Run, data_options

from ..once import equal_models_lowered_once
from ..runs import Make

pytest.importorskip("duckdb", reason="tables are read with duckdb")


def config(make: Make, **data: Any) -> dict[str, Any]:
    values = make(
        train={"epochs": 1}, compact={"budgets": ["50%"], "sizes": {"epochs": 1}, "store": {"max_size": 4}}
    )
    return {**values, "data": {**values["data"], **data}}


@pytest.fixture
def table(table_files: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copy(table_files[1], tmp_path / "rows.csv"))


def test_touched_moved_copied(
    tiny_config: Make, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = config(tiny_config, path=table)
    run = ondevice.train(values, tmp_path / "run")
    os.utime(table, (1, 1))
    assert run.dataset().fingerprint == ondevice.train(values, run.path, resume=True).dataset().fingerprint
    moved = table.rename(tmp_path / "elsewhere.csv")
    resumed = ondevice.train(config(tiny_config, path=moved), run.path, resume=True)
    assert resumed.metrics == run.metrics
    shutil.move(moved, tmp_path / "third.csv")
    elsewhere = Path(shutil.copytree(run.path, tmp_path / "copy"))
    with pytest.raises(
        UserError, match=r"elsewhere.csv does not exist; say where they are now with data.path="
    ):
        Run(elsewhere).dataset()
    assert len(Run(elsewhere, {"path": tmp_path / "third.csv"}).dataset().test) == 200
    other = tmp_path / "other.csv"
    other.write_text((tmp_path / "third.csv").read_text().replace("film 1,", "film 2,"))
    with pytest.raises(UserError, match=r"trained on other data .fingerprint"):
        Run(elsewhere, {"path": other}).dataset(rows=False)


@pytest.mark.parametrize("elastic", [False, True])
def test_a_bundle_from_the_run_alone(
    tiny_config: Make, table: Path, tmp_path: Path, elastic: bool, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The same bytes as with the data there; that nothing was compared over the test split is said."""
    pytest.importorskip("executorch")
    monkeypatch.setenv("ONDEVICE_CACHE", str(tmp_path / "cache"))
    values = config(tiny_config, path=table) | {"model": {"name": "fm"}}  # which is lowered in half the time
    if elastic:
        values["compact"]["budgets"] = ["60%", "30%"]
        values["compact"]["train"]["elastic"] = True
    else:
        values["compact"]["endpoints"] = ["forward", "recommend"]  # whose items the run remembers
    run = ondevice.train(values, tmp_path / "run")
    with equal_models_lowered_once() as lowered:
        before = ondevice.export(run, output=tmp_path / "before")
        table.unlink()
        shutil.rmtree(tmp_path / "cache")
        capsys.readouterr()
        after = ondevice.export(Run(run.path), output=tmp_path / "after")
    assert len(lowered) == len(before)
    assert "the data are not where they were" in capsys.readouterr().err
    for one, other in zip(before, after, strict=True):
        for name in ("model.pte", "vocabulary.bin", "manifest.json"):
            assert (one / name).read_bytes() == (other / name).read_bytes()
    bundle = ondevice.load_bundle(after[0])
    assert bundle.score({"user": 3, "age": 25}) if elastic else bundle.recommend({"user": 3, "age": 25})


def test_tables_in_the_process(tiny_config: Make, table_files: tuple[Path, Path], tmp_path: Path) -> None:
    """pandas, Polars, Arrow and plain columns are the same data, which a run finds again."""
    pa = pytest.importorskip("pyarrow")
    csv = pytest.importorskip("pyarrow.csv")
    arrow = csv.read_csv(table_files[1])
    tables = [arrow, arrow.to_pydict()]
    for module, made in (("pandas", lambda: arrow.to_pandas()), ("polars", lambda: arrow)):
        if module == "polars":
            polars = pytest.importorskip("polars")
            tables.append(polars.from_arrow(arrow))
        else:
            pytest.importorskip(module)
            tables.append(made())
    values = config(tiny_config)
    del values["data"]["path"]
    fingerprints, aucs = set(), set()
    for number, table in enumerate(tables):
        run = ondevice.train(values, tmp_path / str(number), data=table)
        aucs.add(run.metrics["dense"]["valid_auc"])
        fingerprints.add(Run(run.path).dataset().fingerprint)
        ondevice.train(values, run.path, data=table, resume=True)
    assert len(aucs) == 1
    assert len(fingerprints) <= len(tables)
    parts = {"train": arrow.slice(0, 1600), "valid": arrow.slice(1600, 200), "test": arrow.slice(1800)}
    run = ondevice.train(values, tmp_path / "parts", data=parts)
    assert [len(run.dataset().split(name)) for name in parts] == [1600, 200, 200]
    for wrong, message in (
        ([1, 2], "list is no table; give a pandas, Polars or Arrow table"),
        ({"a": [1, "x"]}, "no table of one kind of value a column"),
    ):
        with pytest.raises(UserError, match=message):
            ondevice.train(values, tmp_path / "wrong", data=wrong)
    assert pa is not None


def test_values_of_python_in_a_config(tiny_config: Make, table: Path, tmp_path: Path) -> None:
    values = config(tiny_config, path=[table, table], max_rows=np.int64(1000))
    values["embedding"]["dim"] = np.int32(4)
    run = ondevice.train(values, tmp_path / "run")
    dataset = run.dataset()
    assert len(dataset.train) + len(dataset.valid) + len(dataset.test) == 1000


def test_options_on_the_command_line() -> None:
    assert data_options(["data.path=data #1.csv", "data.folder=2024"]) == {
        "path": "data #1.csv",
        "folder": "2024",
    }
    with pytest.raises(UserError, match=r"'path=x': write where the data are now as data.path=FILE"):
        data_options(["path=x"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k: "1" if k >= 1800 else None, "all 200 labels of test are 1"),
        (lambda k: "0" if 1600 <= k < 1800 else None, "all 200 labels of valid are 0"),
        (lambda k: "1", "all 1600 labels of train are 1"),
    ],
)
def test_a_split_of_one_class_is_said_before_anything_is_trained(
    tiny_config: Make, table: Path, tmp_path: Path, change: Any, message: str
) -> None:
    lines = table.read_text().splitlines()
    rows = [f"{line[:-1]}{change(k) or line[-1]},{k}" for k, line in enumerate(lines[1:])]
    table.write_text("\n".join([f"{lines[0]},at", *rows]) + "\n")
    schema = tmp_path / "t.yaml"
    values = config(tiny_config, path=table)
    text = Path(values["data"]["schema"]).read_text()
    schema.write_text(text + "split: {kind: temporal, time: at}\n")
    with pytest.raises(UserError, match=message):
        ondevice.train({**values, "data": {**values["data"], "schema": schema}}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_training_that_diverges_is_one_line(tiny_config: Make, tmp_path: Path) -> None:
    values = config(tiny_config)
    values["train"]["learning_rate"] = 1e30
    with pytest.raises(UserError, match=r"the training has diverged: .*lower the learning rate"):
        ondevice.train(values, tmp_path / "run")


def test_rows_that_weigh_nothing_teach_nothing(tiny_config: Make, table: Path, tmp_path: Path) -> None:
    """Rows of weight 0 may be of any label; those of weight 2 count like two of them."""
    lines = table.read_text().splitlines()
    wrong = [f"{line[:-1]}{1 - int(line[-1])},0" for line in lines[1:]]
    weighted = [f"{line},2" for line in lines[1:]]
    table.write_text(
        "\n".join([f"{lines[0]},w", *(row for two in zip(weighted, wrong, strict=True) for row in two)])
        + "\n"
    )
    schema = tmp_path / "t.yaml"
    values = config(tiny_config, path=table)
    schema.write_text(Path(values["data"]["schema"]).read_text() + "weight: w\n")
    values["data"]["schema"] = schema
    values["train"]["epochs"] = 3
    weighed = ondevice.train(values, tmp_path / "weighed").metrics["dense"]["valid_auc"]
    schema.write_text(Path(config(tiny_config)["data"]["schema"]).read_text())
    plain = ondevice.train(values, tmp_path / "plain").metrics["dense"]["valid_auc"]
    assert weighed > 0.6
    assert 0.4 < plain < 0.6  # every pair is there with both labels
