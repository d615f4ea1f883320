"""A process that measures programs of several runtimes: their calls take turns, or one of them starts cold.

`ondevice.bench.measure.worker.run_jobs` starts it with ``module="ondevice.bench.peers.worker"``.
"""

from __future__ import annotations

import time
from typing import Any

from ondevice import memory
from ondevice.bench.measure.latency import calls_for, summarize, take_turns
from ondevice.bench.measure.worker import Inputs, caller, serve
from ondevice.bench.peers.measured import RUNTIMES


def load_runtimes(job: dict[str, Any]) -> None:
    """Load the library of every runtime that the job's programs need."""
    for runtime in dict.fromkeys(runtime for runtime, _ in _programs(job)):
        RUNTIMES[runtime].load(job["threads"])


def _programs(job: dict[str, Any]) -> list[tuple[str, str]]:
    """Runtime and file of every program."""
    if job["task"] == "cold":
        return [(job["runtime"], job["file"])]
    return [(p["runtime"], p["file"]) for programs in job["groups"].values() for p in programs.values()]


def measure_latency(job: dict[str, Any]) -> dict[str, Any]:
    """p50, p95 and ratio to the reference: {group: {program: {...}}}."""
    inputs = Inputs(job["inputs"])
    result = {}
    for group, programs in job["groups"].items():
        calls = {}
        for name, each in programs.items():
            program = RUNTIMES[each["runtime"]](each["file"], job["threads"])
            prepared = [program.prepare(*request) for request in inputs.requests(name, "forward", group)]
            calls[name] = caller(program.run, prepared)
        timings = take_turns(calls, rounds=job["rounds"], calls_per_round=calls_for(group))
        result[group] = summarize(timings, job["reference"])
    return result


def measure_cold(job: dict[str, Any]) -> dict[str, Any]:
    """Memory of load and one call, and the milliseconds of each, in a process that ran no program before."""
    kind = RUNTIMES[job["runtime"]]
    (ids,) = Inputs(job["inputs"]).requests(job["name"], "forward", job["group"])[0]
    before = memory.settle(kind.libraries)
    started = time.perf_counter_ns()
    program = kind(job["file"], job["threads"])
    loaded = time.perf_counter_ns()
    program.run(program.prepare(ids))
    called = time.perf_counter_ns()
    return {
        **memory.difference(before, memory.read()),
        "load_ms": (loaded - started) / 1e6,
        "first_call_ms": (called - loaded) / 1e6,
    }


TASKS = {"latency": measure_latency, "cold": measure_cold}

if __name__ == "__main__":
    serve(TASKS, load_runtimes)
