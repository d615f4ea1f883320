"""What takes seconds to make is made once: for all processes of the tests, or for equal models of one test."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
import torch

if TYPE_CHECKING:
    from ondevice.program.endpoints import Endpoint
    from ondevice.program.executorch import ExecuTorch
    from ondevice.program.target import Lowered

T = TypeVar("T")


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """Of this session, for all processes of pytest-xdist."""
    folder = factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


def made_once(file: Path, make: Callable[[], T]) -> T:
    """What the first process that asks makes, and leaves in a file for the others."""
    with open(file, "a+b") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)  # the other process waits until it is whole
        kept.seek(0)
        if content := kept.read():
            return pickle.loads(content)  # type: ignore[no-any-return]
        made = make()
        kept.write(pickle.dumps(made))
        return made


@contextmanager
def equal_models_lowered_once() -> Iterator[list[str]]:
    """Within the block, endpoints whose modules are the same to the last byte are lowered once; yields what was."""
    from ondevice.program.executorch import ExecuTorch

    made: dict[str, Lowered] = {}
    lowered: list[str] = []

    def remembered(self: ExecuTorch, endpoints: Mapping[str, Endpoint]) -> Lowered:
        content = BytesIO()  # a plain pickle of a tensor names its place in memory
        asked = [(n, e.module, e.example, repr(e.dynamic_shapes), e.batch) for n, e in endpoints.items()]
        torch.save(asked, content)
        key = hashlib.sha256(content.getvalue()).hexdigest()
        if key not in made:
            made[key] = lower(self, endpoints)
            lowered.append(key)
        return made[key]

    lower = ExecuTorch.lower
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExecuTorch, "lower", remembered)
        yield lowered
