"""A worker process: does the tasks that it reads from stdin, a line of JSON each, and answers each with a line.

It ends when stdin does, so it never outlives the process that started it. Its argument is the folder of the plan.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ondevice.data.preparation.chunk import ChunkId
from ondevice.data.preparation.division import count_chunk
from ondevice.data.preparation.encode import encode_chunk
from ondevice.data.preparation.merge import merge_field
from ondevice.data.preparation.plan import Plan
from ondevice.data.preparation.tables import parse_batch
from ondevice.data.preparation.text import TextFormat, parse_text
from ondevice.errors import UserError


def do(plan: Plan, step: str, task: dict[str, Any]) -> dict[str, Any]:
    """One task of a step."""
    if step == "merge":
        return merge_field(plan, task["field"], task["limit"])
    which = ChunkId(task["file"], task["number"])
    if step == "text":
        path = Path(task["path"])
        with open(path, "rb") as file:
            file.seek(task["offset"])
            data = file.read(task["size"])
        if task["temporary"]:
            path.unlink()
        form, target = TextFormat.from_dict(plan.source), plan.chunk_path(which)
        return parse_text(form, plan.schema, data, task["line"], task["num_lines"], target, plan.bad_rows)
    if step == "table":
        return parse_batch(plan, which, Path(task["path"]))
    if step == "count":
        return count_chunk(plan, which, task["given"])
    assert step == "encode"
    return encode_chunk(plan, which, task["places"], task["rows"], task["offsets"], task["first"])


class Inline:
    """A `Pool` without processes of its own: the tasks are done where they are handed out."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(
        self,
        sources: Sequence[Iterable[dict[str, Any]]],
        done: Callable[[dict[str, Any], dict[str, Any]], None],
    ) -> None:
        """Do the tasks of all sources, one after the other."""
        for task in itertools.chain.from_iterable(sources):
            done(task, do(self._plan, task["step"], task))


def main() -> None:
    """Serve until stdin ends."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # the process that started this one decides what Ctrl-C means
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    plan = Plan.load(Path(sys.argv[1]))
    for line in sys.stdin:
        task = json.loads(line)
        try:
            answer = do(plan, task["step"], task)
        except UserError as error:
            answer = {"user_error": str(error)}
        except OSError as error:
            answer = {"os_error": str(error)}
        except Exception:
            answer = {"traceback": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        pa.default_memory_pool().release_unused()
