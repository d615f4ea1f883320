"""The timing harness, on a clock that the test turns."""

from __future__ import annotations

import gc

import pytest

from ondevice.bench.measure.latency import Timing, calls_for, percentile, summarize, take_turns


class Clock:
    """Nanoseconds that pass only when something is called."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def taking(self, *nanoseconds: int):
        """A call that takes these times in turn."""
        calls: list[int] = []

        def call(number: int) -> None:
            self.now += nanoseconds[len(calls) % len(nanoseconds)]
            calls.append(number)

        call.calls = calls  # type: ignore[attr-defined]
        return call


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 5), (51, 6), (90, 9), (95, 10), (100, 10)]
)
def test_percentiles_are_the_nearest_rank(percent: float, expected: int) -> None:
    assert percentile([10, 1, 9, 2, 8, 3, 7, 4, 6, 5], percent) == expected


def test_percentile_of_nothing_raises() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_every_timed_call_is_measured_alone() -> None:
    clock = Clock()
    fast, slow = clock.taking(2_000), clock.taking(7_000)
    timings = take_turns({"fast": fast, "slow": slow}, rounds=3, calls_per_round=4, warmup=2, clock=clock)
    assert timings["fast"].rounds == [[2_000] * 4] * 3
    assert timings["slow"].rounds == [[7_000] * 4] * 3
    # two calls to warm up, then one before the four of each round
    assert fast.calls == [0, 1] + [0, 0, 1, 2, 3] * 3
    assert summarize(timings, "slow") == {
        "fast": {"p50": 2.0, "p95": 2.0, "over_reference": 0.2857},
        "slow": {"p50": 7.0, "p95": 7.0, "over_reference": 1.0},
    }


def test_programs_take_turns_in_an_order_that_turns() -> None:
    order: list[str] = []
    calls = {name: (lambda number, name=name: order.append(name)) for name in "abc"}
    take_turns(calls, rounds=3, calls_per_round=1, warmup=0)
    assert "".join(order[::2]) == "abcbcacab"  # every round calls each twice: once untimed


def test_a_disturbed_round_changes_neither_median_nor_ratio() -> None:
    calm, disturbed = [10_000, 11_000, 12_000], [110_000, 111_000, 112_000]
    timing = Timing([disturbed, calm, calm])
    assert timing.p50_us() == 11.0
    assert timing.p95_us() == 12.0
    reference = Timing([[222_000], [22_000], [22_000]])
    assert timing.ratio_to(reference) == 0.5  # drift that hits both sides of a round cancels


def test_no_reference_no_ratio() -> None:
    assert summarize({"a": Timing([[1_000]])}, "int8") == {"a": {"p50": 1.0, "p95": 1.0}}


def test_garbage_is_not_collected_while_timing() -> None:
    seen: list[bool] = []
    take_turns({"a": lambda number: seen.append(gc.isenabled())}, rounds=1, calls_per_round=2, warmup=0)
    assert seen == [False] * 3
    assert gc.isenabled()


def test_long_calls_are_repeated_less() -> None:
    assert [calls_for(group) for group in ("1", "100", "1000", "recommend")] == [200, 60, 20, 20]


@pytest.mark.parametrize(("rounds", "calls"), [(0, 1), (1, 0)])
def test_nothing_to_time_raises(rounds: int, calls: int) -> None:
    with pytest.raises(ValueError, match="at least one round"):
        take_turns({"a": lambda number: None}, rounds=rounds, calls_per_round=calls)
