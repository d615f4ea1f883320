"""Sizes on paper, by hand, and the page that shows them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cluster import (
    Cluster,
    Job,
    bytes_per_row,
    bytes_per_row_ddp,
    estimate,
    processes_needed,
)

ROOT = Path(__file__).resolve().parents[2]


def test_bytes_per_row_by_hand() -> None:
    """D = 16 and a first-order weight take 20 columns; thresholds as many, or 4 where rows have one."""
    assert bytes_per_row("dense", "rowwise_adagrad", 16) == 80 + 4
    assert bytes_per_row("dense", "adam", 16) == 80 + 160
    assert bytes_per_row("pep feature", "adagrad", 16) == 80 + 80 + 16
    assert bytes_per_row("pep feature-dimension", "rowwise_adagrad", 16) == 80 + 4 + 80
    assert bytes_per_row("dense", "adagrad", 15) == 64 + 64
    assert bytes_per_row_ddp("dense", 16, averaged=False) == 4 * 17 * 4
    assert bytes_per_row_ddp("pep feature-dimension", 16, averaged=True) == 4 * (17 * 5 + 2 * 17)


def test_processes_by_hand() -> None:
    """84 GB in parts of 10 GB."""
    cluster = Cluster(memory=20e9, usable=0.5)
    assert processes_needed(Job(rows=1e9), cluster, "dense", "rowwise_adagrad") == 9
    assert processes_needed(Job(rows=10), cluster, "dense", "rowwise_adagrad") == 1


def test_a_step_by_hand() -> None:
    """Two processes, 100 lookups each of which 50 are of different rows, half of them elsewhere."""
    job = Job(rows=1e6, dim=3, fields=10, batch=20, parameters=1000, distinct=0.5, passes=2, sorting=10)
    cluster = Cluster(
        memory_bandwidth=1e9,
        fast_bandwidth=1e6,
        latency=1e-3,
        flops=1e9,
        achieved=0.5,
        overhead=0.1,
        price=36,
    )
    result = estimate(job, cluster, 2, "dense", "adagrad")
    assert result.traffic == 25 * (8 + 2 * 16) + 2 * 4 * 1000 / 2
    assert result.network_seconds == pytest.approx(5000 / 0.5e6 + 6e-3)
    assert result.memory_seconds == pytest.approx((2 * 50 * (32 + 16) + 100 * (32 + 10)) / 0.5e9)
    assert result.compute_seconds == pytest.approx(6 * 1000 * 10 / 0.5e9)
    assert result.minutes == pytest.approx(5e7 * result.step_seconds / 60)
    assert result.cost == pytest.approx(result.minutes / 60 * 2 * 36)
    alone = estimate(job, cluster, 1, "dense", "adagrad")
    assert (alone.traffic, alone.network_seconds) == (0, 0)


def test_thresholds_and_slow_networks_cost_more() -> None:
    job = Job()
    several = [
        estimate(job, Cluster(), 8, method, "adagrad")
        for method in ("dense", "pep feature", "pep feature-dimension")
    ]
    assert several[0].traffic < several[1].traffic < several[2].traffic
    assert estimate(job, Cluster(), 16, "dense", "adagrad").network_seconds > several[0].network_seconds


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/cluster.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_page_shows_what_the_script_prints() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    commands = re.findall(r"^python benchmarks/cluster.py(.*)$", page, re.MULTILINE)
    assert commands
    for command in commands:
        assert run(*command.split()).stdout.strip() in page, command


def test_a_size_that_is_none_is_told() -> None:
    result = run("--rows", "0")
    assert (result.returncode, result.stderr) == (2, "error: --rows: got 0.0; it must be above 0\n")
