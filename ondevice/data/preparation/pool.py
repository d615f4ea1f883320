"""Worker processes, and tasks handed to them from several sources at once."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ondevice.data.sources import say
from ondevice.errors import ConfigError, DataError

SAY_SECONDS = 15.0
WORKER = "from ondevice.data.preparation.worker import main; main()"  # with -m Python warns that it is imported already
Task = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]


class BadLineError(DataError):
    """A line that cannot be used; ``place`` is the number of its file and its own."""

    def __init__(self, message: str, place: tuple[int, int]) -> None:
        super().__init__(message)
        self.place = place


class Pool:
    """Processes of `ondevice.data.preparation.worker` on one plan; use it in a ``with`` statement.

    Args:
        folder: holds the plan.
        num_workers: processes.
    """

    def __init__(self, folder: Path, num_workers: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-c", WORKER, str(folder)]
        self._workers = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            for _ in range(num_workers)
        ]

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            if kind is not None:
                worker.kill()
            assert worker.stdin is not None
            with contextlib.suppress(OSError):
                worker.stdin.close()
        for worker in self._workers:
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()

    def run(self, sources: Sequence[Iterable[Task]], done: Callable[[Task, dict[str, Any]], None]) -> None:
        """Do the tasks of all sources; ``done`` is called with a task and its answer, one call at a time.

        A source is read by one thread at a time, so that several (files to be unpacked, say) go on at once.

        Raises: UserError: when ``done`` or a source does, or a worker cannot go on; tasks under way are
            finished before, and of several errors that of the first line is given.
        """
        feed = _Feed(sources)
        lock = threading.Lock()

        def serve(worker: subprocess.Popen[str]) -> None:
            try:
                while (task := feed.next()) is not None:
                    answer = _ask(worker, task)
                    with lock:
                        done(task, answer)
            except BaseException as error:
                feed.stop(error)

        threads = [threading.Thread(target=serve, args=(worker,), daemon=True) for worker in self._workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if feed.errors:
            raise min(feed.errors, key=lambda error: getattr(error, "place", (-1, 0)))


class _Feed:
    """Hands out tasks until there are none or an error has been seen."""

    def __init__(self, sources: Sequence[Iterable[Task]]) -> None:
        self._sources: list[tuple[Iterator[Task], threading.Lock]] = [
            (iter(source), threading.Lock()) for source in sources
        ]
        self.errors: list[BaseException] = []

    def stop(self, error: BaseException) -> None:
        """No further task is handed out."""
        self.errors.append(error)

    def next(self) -> Task | None:
        """A task of the first source that no other thread reads; None when there is none left."""
        while not self.errors:
            sources = list(self._sources)
            if not sources:
                return None
            free = next((s for s in sources if s[1].acquire(blocking=False)), None)
            if free is None:
                with sources[0][1]:  # all are being read: wait for the first
                    continue
            iterator, lock = free
            try:
                task = next(iterator, None)
                if task is not None:
                    return task
                with contextlib.suppress(ValueError):
                    self._sources.remove(free)
            finally:
                lock.release()
        return None


def _ask(worker: subprocess.Popen[str], task: Task) -> dict[str, Any]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(json.dumps(task) + "\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
    except OSError:
        line = ""
    if not line:
        raise ConfigError(
            f"a process that prepares the data ended ({worker.wait()}); was it out of memory? Lower data.workers or "
            "data.memory and start again: what is finished is kept"
        )
    answer: dict[str, Any] = json.loads(line)
    if "user_error" in answer:
        raise DataError(answer["user_error"])
    if "os_error" in answer:
        raise OSError(answer["os_error"])
    if "traceback" in answer:
        raise RuntimeError(answer["traceback"])
    return answer


class Progress:
    """Now and then a line that says how far a step is."""

    def __init__(self, what: str, done: int = 0) -> None:
        self._what, self._done, self._new = what, int(done), 0
        self._started = self._said = time.monotonic()

    def add(self, number: int) -> None:
        """So many more are done."""
        self._done += number
        self._new += number
        now = time.monotonic()
        if now - self._said > SAY_SECONDS:
            self._said = now
            rate = self._new / (now - self._started)
            say(f"{self._what}: {self._done:,}" + (f" ({rate:,.0f} a second)" if rate >= 1 else ""))
