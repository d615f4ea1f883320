"""The pandas loop does the same work, to the last id, and what is measured is what is said."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import made_up, prepare_paths
from benchmarks import prepare as benchmark
from ondevice.data import load_dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.usefixtures("inline")
def test_the_pandas_loop_finds_the_same_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas", reason="the loop is one of pandas")
    monkeypatch.setattr(benchmark, "PANDAS_CHUNK", 700)
    made_up.write_criteo(tmp_path / "train.txt", 3000)
    benchmark.pandas_loop(tmp_path / "train.txt", 3000, tmp_path / "pandas")
    data = load_dataset("criteo", path=tmp_path / "train.txt", split="temporal")
    parts = [data.split(name) for name in ("train", "valid", "test")]
    assert np.array_equal(
        np.load(tmp_path / "pandas" / "ids.npy"), np.concatenate([part.ids for part in parts])
    )
    assert np.array_equal(
        np.load(tmp_path / "pandas" / "labels.npy"), np.concatenate([p.labels for p in parts])
    )


@pytest.mark.usefixtures("inline")
def test_the_engine_makes_the_same_of_criteo(tmp_path: Path) -> None:
    path, schema = tmp_path / "train.txt", tmp_path / "criteo.yaml"
    made_up.write_criteo(path, 1000)
    schema.write_text(json.dumps(prepare_paths.as_table()))
    text = load_dataset("criteo", path=path)
    engine = load_dataset("table", path=path, schema=schema, streamed=True)
    assert engine.vocabulary == text.vocabulary
    for name in ("train", "valid", "test"):
        assert np.array_equal(engine.split(name).ids, text.split(name).ids)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_is_that_of_all_processes() -> None:
    child = "import time; block = bytearray(80_000_000); print(1, flush=True); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        processes = benchmark.tree(process.pid)
        peaks = [benchmark.peak_bytes(pid) for pid in processes]
        assert len(processes) == 2
        assert 80_000_000 < max(peaks) < 140_000_000
        assert 0 < min(peaks) < 60_000_000
        subprocess.run(["kill", str(processes[1])], check=True)
    finally:
        process.kill()
        process.wait()
    assert benchmark.peak_bytes(process.pid) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pandas", reason="the loop is one of pandas")
    output = tmp_path / "out.json"
    arguments = [
        "--rows",
        "3000",
        "--pandas-rows",
        "1000",
        "--folder",
        str(tmp_path / "f"),
        "--output",
        str(output),
    ]
    monkeypatch.setattr(sys, "argv", ["prepare_benchmark.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "benchmarks" / "prepare.py"), run_name="__main__")
    assert ended.value.code == 0
    figures = json.loads(output.read_text())
    assert json.loads(capsys.readouterr().out) == figures
    assert not (tmp_path / "f").exists()
    assert sum(figures["prepare"]["rows_by_split"]) == 3000
    peaks = figures["prepare"]["peak_bytes_by_process"]
    assert figures["prepare"]["peak_bytes"] == sum(peaks)
    assert len(peaks) >= 2
    rates = [figures[name]["rows_per_second"] for name in ("prepare", "pandas_loop")]
    rates_of_batches = figures["batches_rows_per_second"]
    assert set(rates_of_batches) == {"in_memory", "on_disk"}
    assert all(rate > 0 for of_size in rates_of_batches.values() for rate in of_size.values())
    assert figures["prepare_over_pandas"] == pytest.approx(rates[0] / rates[1], abs=0.006)  # two digits
