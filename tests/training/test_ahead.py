"""Items made ahead by a thread: all, in order; its errors are the consumer's; it ends when the consumer does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from ondevice.training.ahead import ahead


def test_everything_in_order() -> None:
    assert list(ahead(lambda: iter(range(1000)), 3)) == list(range(1000))
    assert list(ahead(lambda: iter([]), 1)) == []


def test_no_more_than_so_many_ahead() -> None:
    made: list[int] = []

    def produce() -> Iterator[int]:
        for item in range(100):
            made.append(item)
            yield item

    items = ahead(produce, 4)
    next(items)
    time.sleep(0.3)
    assert 1 <= len(made) <= 6  # four wait, one is being put, one was taken
    items.close()


def test_an_error_comes_after_what_was_made_before_it() -> None:
    def produce() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("of the thread")

    items = ahead(produce, 4)
    assert next(items) == 1
    with pytest.raises(ZeroDivisionError, match="of the thread"):
        next(items)


def test_the_thread_ends_with_the_consumer() -> None:
    before = threading.active_count()
    items = ahead(lambda: iter(range(10**9)), 2)
    assert next(items) == 0
    assert threading.active_count() == before + 1
    items.close()
    assert threading.active_count() == before
