"""What the runtime refuses, and that nothing but a UserError comes of it."""

from __future__ import annotations

import numpy as np
import pytest

from ondevice.errors import UserError
from ondevice.program.bundle import Bundle
from ondevice.program.export import Exported
from ondevice.program.runtime import LoadedProgram


def test_the_runtime_refuses_a_broken_program(exported: Exported) -> None:
    data = bytearray(exported.bundle.contents["model.pte"])
    data[4:8] = b"XXXX"
    with pytest.raises(UserError, match=r"broken\.pte: the runtime refuses this program.*export it again"):
        LoadedProgram(bytes(data), "broken.pte")


@pytest.mark.parametrize(
    ("method", "inputs", "message"),
    [
        ("forwrd", [np.zeros((1, 5), np.int64)], r"no method 'forwrd' \(did you mean 'forward'"),
        ("forward", [np.zeros((1, 4), np.int64)], r"cannot run 'forward' on arrays of shape \(1, 4\)"),
        ("forward", [np.zeros((100, 5), np.int64)], "at most as many as it names"),
        ("forward", [np.zeros((1, 5), np.float32)], "give int64 rows"),
        ("forward", [np.zeros((0, 5), np.int64)], "give at least one row"),
        ("forward", [-np.ones((1, 5), np.int64)], "none below 0"),
        ("forward", [np.zeros(5, np.int64)], r"of shape \(5,\)"),
        ("rank", [np.zeros((1, 3), np.int64)], "cannot run 'rank'"),
        ("forward", [], "cannot run 'forward'"),
    ],
)
def test_what_a_program_cannot_run_on_is_said_in_one_line(
    bundle: Bundle, method: str, inputs: list[np.ndarray], message: str
) -> None:
    with pytest.raises(UserError, match=rf"model\.pte: .*{message}"):
        bundle.program(method, *inputs)
    assert len(bundle.program("forward", np.zeros((1, 5), np.int64))[0]) == 1  # it can still be used
