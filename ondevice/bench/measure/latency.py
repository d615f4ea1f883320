"""How long one call of a program takes: p50 and p95, with the programs that are compared taking turns.

Every round calls each program in turn, so that whatever else the machine does hits all of them alike; a
ratio is taken within each round. Each number of threads runs in a process of its own (`worker`).
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Nanoseconds of every call, a list a round."""

    rounds: list[list[int]]

    def p50_us(self) -> float:
        """Median over the rounds of each round's median, in microseconds."""
        return statistics.median(percentile(calls, 50) for calls in self.rounds) / 1e3

    def p95_us(self) -> float:
        """Median over the rounds of each round's 95th percentile, in microseconds."""
        return statistics.median(percentile(calls, 95) for calls in self.rounds) / 1e3

    def ratio_to(self, other: Timing) -> float:
        """Median over the rounds of this median over the other's in the same round."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return statistics.median(percentile(times, 50) / percentile(base, 50) for times, base in pairs)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` per cent of the values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values to take a percentile of")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def calls_for(group: str) -> int:
    """Calls a round for a number of candidates, fewer of the longer ones; 20 for what is no number."""
    return max(20, min(200, 6000 // int(group))) if group.isdigit() else 20


def take_turns(
    calls: Mapping[str, Callable[[int], Any]],
    *,
    rounds: int,
    calls_per_round: int,
    warmup: int = 10,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Timing]:
    """Time several functions, a round of one after a round of the other.

    Args:
        calls: what is timed, by name; each gets the number of the call, to choose its input by.
        rounds: rounds of each function, at least 1; the order of the functions turns by one every round.
        calls_per_round: timed calls of one function in one round, at least 1.
        warmup: calls of each function before the first round, not timed.
        clock: nanoseconds that only grow.
    """
    if rounds < 1 or calls_per_round < 1:
        raise ValueError(f"at least one round and one call, got {rounds} and {calls_per_round}")
    names = list(calls)
    timings: dict[str, Timing] = {name: Timing([]) for name in names}
    for name in names:
        for number in range(warmup):
            calls[name](number)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                call, taken = calls[name], []
                call(0)  # the caches hold the previous program
                for number in range(calls_per_round):
                    before = clock()
                    call(number)
                    taken.append(clock() - before)
                timings[name].rounds.append(taken)
    finally:
        if collecting:
            gc.enable()
    return timings


def summarize(timings: Mapping[str, Timing], reference: str | None) -> dict[str, dict[str, float]]:
    """p50 and p95 of each name in microseconds, and its ratio to the reference when that is there."""
    result: dict[str, dict[str, float]] = {}
    for name, timing in timings.items():
        entry = {"p50": round(timing.p50_us(), 2), "p95": round(timing.p95_us(), 2)}
        if reference is not None and reference in timings:
            entry["over_reference"] = round(timing.ratio_to(timings[reference]), 4)
        result[name] = entry
    return result
