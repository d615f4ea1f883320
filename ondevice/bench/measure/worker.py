"""A process that holds nothing but ExecuTorch's runtime: the inside of every latency and memory measurement.

`run_jobs` starts ``python -m ondevice.bench.measure.worker``, which reads a job (one line of JSON on standard input),
loads the runtime, prints ``ready``, waits for a second line, measures, and prints the result as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ondevice import memory
from ondevice.bench.measure.latency import calls_for, summarize, take_turns
from ondevice.bench.measure.runtime import Program, native, set_threads

READY = "ready"


def input_key(program: str, method: str, group: str, request: int, argument: int) -> str:
    """Name of one input tensor in the file that goes to a worker."""
    return f"{program}/{method}/{group}/{request}/{argument}"


class Inputs:
    """Input tensors of every program, method and group of calls, read from one file."""

    def __init__(self, path: str | Path) -> None:
        self.tensors = load_file(path)

    def requests(self, program: str, method: str, group: str) -> list[tuple[torch.Tensor, ...]]:
        """The inputs of each request."""
        calls: list[tuple[torch.Tensor, ...]] = []
        while input_key(program, method, group, len(calls), 0) in self.tensors:
            arguments: list[torch.Tensor] = []
            while (key := input_key(program, method, group, len(calls), len(arguments))) in self.tensors:
                arguments.append(self.tensors[key])
            calls.append(tuple(arguments))
        if not calls:
            raise ValueError(f"no inputs for {program}.{method} in group {group}")
        return calls


def measure_latency(job: dict[str, Any]) -> dict[str, Any]:
    """p50, p95 and ratio to the reference: {"groups": {group: {"<program>.<method>": {...}}}, "threads": n}."""
    inputs = Inputs(job["inputs"])
    programs = {name: Program(path) for name, path in job["programs"].items()}
    result: dict[str, Any] = {}
    for group, members in job["groups"].items():
        calls = {
            f"{name}.{method}": caller(programs[name].method(method), inputs.requests(name, method, group))
            for name, method in members
        }
        timings = take_turns(calls, rounds=job["rounds"], calls_per_round=calls_for(group))
        result[group] = summarize(timings, job["reference"])
    return {"groups": result, "threads": native()._threadpool_get_thread_count()}


def caller(
    method: Callable[[Any], Any], requests: Sequence[tuple[torch.Tensor, ...]]
) -> Callable[[int], Any]:
    """Calls the method with the request that a call's number falls on."""
    count = len(requests)
    return lambda number: method(requests[number % count])


def measure_cold(job: dict[str, Any]) -> dict[str, Any]:
    """Memory of load and one call, and the milliseconds of each, in a process that ran no program before."""
    (inputs, *_) = Inputs(job["inputs"]).requests(job["name"], job["method"], job["group"])
    before = memory.settle()
    started = time.perf_counter_ns()
    program = Program(job["pte"])
    method = program.method(job["method"])
    loaded = time.perf_counter_ns()
    method(inputs)
    called = time.perf_counter_ns()
    return {
        **memory.difference(before, memory.read()),
        "load_ms": (loaded - started) / 1e6,
        "first_call_ms": (called - loaded) / 1e6,
    }


TASKS = {"latency": measure_latency, "cold": measure_cold}


def run_jobs(
    jobs: Sequence[dict[str, Any]], *, at_once: int = 1, module: str = "ondevice.bench.measure.worker"
) -> Iterator[dict[str, Any]]:
    """Run each job in a fresh process; results in the order of the jobs.

    Args:
        jobs: what `main` reads.
        at_once: processes that start together; they then measure one after the other.
        module: whose ``main`` the processes run; it calls `serve`.

    Raises: RuntimeError: when a process fails, with the end of what it printed.
    """
    for first in range(0, len(jobs), at_once):
        started: list[subprocess.Popen[str]] = []
        try:
            for job in jobs[first : first + at_once]:
                started.append(_start(job, module))
            for process in started:
                _expect_ready(process)
            for process in started:
                out, err = process.communicate("go\n")
                if process.returncode:
                    raise RuntimeError(f"measurement process failed ({process.returncode}): {err[-2000:]}")
                yield json.loads(out)
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait()


def _start(job: dict[str, Any], module: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", module]
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)
    assert process.stdin is not None
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()
    return process


def _expect_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    if line.strip() != READY:
        process.wait()
        raise RuntimeError(f"measurement process failed before it was ready: {process.stderr.read()[-2000:]}")


def serve(
    tasks: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]],
    load: Callable[[dict[str, Any]], None],
) -> None:
    """Read one job, load the runtime, wait, measure, print."""
    job = json.loads(sys.stdin.readline())
    torch.set_num_threads(1)
    load(job)
    print(READY, flush=True)
    sys.stdin.readline()
    print(json.dumps(tasks[job["task"]](job)), flush=True)


def load_runtime(job: Mapping[str, Any]) -> None:
    """Load ExecuTorch's runtime with as many threads as the job says."""
    native()
    set_threads(job["threads"])


def main() -> None:
    """Serve one job on ExecuTorch's runtime."""
    serve(TASKS, load_runtime)


if __name__ == "__main__":
    main()
