"""Steps on made-up tables: what is made up is what was asked for, and figures have their names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.table_step_time import (
    Workload,
    compare_tables,
    copy_bandwidth,
    field_sizes,
    made_up_batches,
    short,
)
from ondevice.errors import UserError

CPU = torch.device("cpu")
SMALL = Workload(num_fields=5, embedding_dim=4, batch_size=32, rounds=2, steps=4)


@pytest.mark.parametrize(("num_rows", "num_fields"), [(156, 39), (1000, 39), (10_000_000, 39), (7, 1)])
def test_fields_share_all_rows(num_rows: int, num_fields: int) -> None:
    sizes = field_sizes(num_rows, num_fields)
    assert len(sizes) == num_fields
    assert sizes.sum() == num_rows
    assert sizes[0] == (num_rows if num_fields == 1 else 4)
    assert (np.diff(sizes) >= 0).all()


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(UserError, match="155 rows are too few for 39 fields; use at least 156"):
        field_sizes(155, 39)


def test_made_up_ids_lie_in_their_fields_and_some_are_popular() -> None:
    sizes = np.array([4, 1000])
    (ids, labels), (other, _) = made_up_batches(sizes, 500, 2, CPU)
    assert ids.shape == (500, 2)
    assert set(labels.tolist()) == {0.0, 1.0}
    assert 0 <= ids[:, 0].min() <= ids[:, 0].max() < 4
    assert 4 <= ids[:, 1].min() <= ids[:, 1].max() < 1004
    assert not torch.equal(ids, other)
    counts = torch.cat([ids, other])[:, 1].bincount()
    assert counts.max() > 50  # one in 8 is the first of Zipf's law
    assert counts.argmax() > 20  # and it is anywhere


def test_figures_are_of_what_they_say() -> None:
    figures = compare_tables([1000, 20_000], SMALL, granularities=["feature"], device=CPU, bandwidth=1e9)
    assert figures["ratio_20k_over_1k"] == max(e["ratio_20k_over_1k"] for e in figures["measured"])
    assert set(figures["pep_over_dense"]) == {"1k", "20k"}
    assert set(figures["pep_over_dense"]["20k"]) == {"budget", "decay"}
    decay = figures["measured"][1]
    assert (decay["regime"], decay["granularity"]) == ("decay", "feature")
    table = decay["tables"]["20k"]
    assert table["pep_over_dense"] > 0  # the median over pairs of steps, not the ratio of the medians
    # 20,000 rows: 4 + 1 weights, 2 thresholds, moments of all 7; packed with the step, in multiples of 4
    assert table["pep_bytes"] == {
        "weights": 400_000,
        "thresholds": 160_000,
        "moments": 1_120_000,
        "packed": 20_000 * 4 * 24,
    }
    assert table["dense_bytes"]["packed"] == 20_000 * 4 * 16
    assert table["pep_bytes_of_step"] == 4 * table["distinct_rows"] * 96 + 160 * (16 * 5 + 16)
    assert table["pep_share_of_bandwidth"] == pytest.approx(table["pep_bytes_per_second"] / 1e9, abs=1e-4)


def test_bandwidth_of_copies_is_measured() -> None:
    assert 1e8 < copy_bandwidth(CPU, 1 << 24) < 1e13


def test_numbers_are_short() -> None:
    assert [short(n) for n in (999, 100_000, 10_000_000, 1500)] == ["999", "100k", "10M", "1500"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    script = str(root / "benchmarks" / "step_time.py")
    return subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, env={**os.environ}, check=False
    )


def test_the_script_writes_them(tmp_path: Path) -> None:
    output = tmp_path / "step_time.json"
    small = {"fields": 5, "dim": 4, "batch-size": 32, "rounds": 1, "steps": 3, "bandwidth": 10}
    options = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    done = run("--tables", "1000", "20000", *options, "--output", str(output))
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text())
    assert {"torch", "threads", "processor", "batch_size", "ratio_20k_over_1k"} <= set(figures)
    assert [e["granularity"] for e in figures["measured"]] == ["feature"] * 2 + ["feature-dimension"] * 2


def test_one_table_is_refused() -> None:
    done = run("--tables", "1000")
    assert done.returncode == 2
    assert "--tables: got [1000]; give two or more numbers of rows, ascending" in done.stderr
