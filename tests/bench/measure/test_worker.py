"""Measurements in fresh processes, of small programs."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch

from ondevice import memory
from ondevice.bench.measure.worker import run_jobs
from ondevice.bench.measure.workload import write_inputs
from ondevice.recommender import Recommender

from ..conftest import rows_of

STATUS = (
    "Name:\tpython\nVmHWM:\t    2000 kB\nVmRSS:\t    1500 kB\nRssAnon:\t     900 kB\nRssFile:\t     600 kB\n"
)


@pytest.fixture(scope="module")
def inputs(dense: Recommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / "inputs.safetensors"
    requests = {
        (name, "forward", group): [(rows_of(dense, int(group), seed),) for seed in range(3)]
        for name in ("fp32", "int8")
        for group in ("1", "20")
    }
    write_inputs(path, requests)
    return path


def test_status_is_read_in_bytes() -> None:
    expected = {"peak": 2000 * 1024, "resident": 1500 * 1024, "anonymous": 900 * 1024}
    assert memory.parse_status(STATUS) == expected


def test_status_without_a_line_raises() -> None:
    with pytest.raises(ValueError, match="RssAnon"):
        memory.parse_status(STATUS.replace("RssAnon", "Other"))


def test_added_memory_is_the_peak_over_what_was_resident() -> None:
    before = {"peak": 1000, "resident": 900, "anonymous": 500}
    after = {"peak": 1700, "resident": 1200, "anonymous": 650}
    assert memory.difference(before, after) == {
        "peak_rss_bytes": 1700,
        "rss_before_load_bytes": 900,
        "added_rss_bytes": 800,
        "added_anonymous_bytes": 150,
    }


def test_settling_resets_the_peak() -> None:
    torch.ones(20_000_000).sum()  # 80 MB that are freed again
    reading = memory.settle()
    assert reading["peak"] - reading["resident"] < 20_000_000


def test_a_library_is_mapped_page_by_page() -> None:
    block = ctypes.create_string_buffer(3 * memory.PAGE)
    begin = ctypes.addressof(block) & -memory.PAGE
    line = "{:x}-{:x} {} 00000000 00:00 0 /lib/{}"
    maps = [
        line.format(begin, begin + 2 * memory.PAGE, "r-xp", "lib_wanted.so"),
        line.format(begin, begin + memory.PAGE, "r--p", "lib_wanted.so"),
        line.format(begin, begin + memory.PAGE, "---p", "lib_wanted.so"),
        line.format(begin, begin + memory.PAGE, "r-xp", "other.so"),
        f"{begin:x}-{begin + memory.PAGE:x} rw-p 00000000 00:00 0",
    ]
    assert memory.map_library("_wanted", "\n".join(maps)) == 3 * memory.PAGE


def test_latency_is_measured_with_the_threads_asked_for(programs: dict[str, Path], inputs: Path) -> None:
    members = [["fp32", "forward"], ["int8", "forward"]]
    job = {
        "task": "latency",
        "threads": 2,
        "programs": {name: str(programs[name]) for name in ("fp32", "int8")},
        "inputs": str(inputs),
        "groups": {"1": members, "20": members},
        "rounds": 3,
        "reference": "int8.forward",
    }
    (result,) = run_jobs([job])
    assert result["threads"] == 2
    assert set(result["groups"]) == {"1", "20"}
    for measured in result["groups"].values():
        assert set(measured) == {"fp32.forward", "int8.forward"}
        assert measured["int8.forward"]["over_reference"] == 1.0
        assert all(0 < m["p50"] <= m["p95"] for m in measured.values())


def test_cold_starts_are_measured_one_process_each(programs: dict[str, Path], inputs: Path) -> None:
    jobs = [
        {
            "task": "cold",
            "threads": 1,
            "name": name,
            "pte": str(programs[name]),
            "method": "forward",
            "group": "20",
            "inputs": str(inputs),
        }
        for name in ("fp32", "int8")
    ]
    for result in run_jobs(jobs, at_once=2):
        assert 0 < result["added_rss_bytes"] < 50_000_000
        assert result["peak_rss_bytes"] > 50_000_000  # libtorch alone
        assert result["load_ms"] > 0
        assert result["first_call_ms"] > 0


def test_a_job_that_fails_says_why(tmp_path: Path, inputs: Path) -> None:
    broken = tmp_path / "broken.pte"
    broken.write_bytes(b"no program")
    job = {
        "task": "cold",
        "threads": 1,
        "name": "int8",
        "pte": str(broken),
        "method": "forward",
        "group": "20",
        "inputs": str(inputs),
    }
    with pytest.raises(RuntimeError, match=r"broken\.pte: not a program this runtime can load"):
        list(run_jobs([job]))


def test_without_proc_the_peak_is_what_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("STATUS", "MAPS", "CLEAR_REFS"):
        monkeypatch.setattr(memory, name, tmp_path / "absent" / name)
    reading = memory.settle()
    assert reading["peak"] == reading["resident"] == reading["anonymous"] > 0
    assert memory.difference(reading, reading)["added_rss_bytes"] == 0
