"""Fused kernels do what the plain functions do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ondevice.forms import fused as fusing
from ondevice.forms.fused import fused
from ondevice.forms.soft_threshold import _gradients_, _pruned
from ondevice.training.optimizers import idle
from ondevice.training.optimizers.idle import AdamStep, IdleSteps, Rows

ROOT = Path(__file__).resolve().parents[2]
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler (g++) on a CPU"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def drawn(shape: tuple[int, int], s_shape: tuple[int, int], device: str = "cpu") -> tuple[torch.Tensor, ...]:
    """Weights of which about half are pruned, their thresholds, and gradients."""
    torch.manual_seed(0)
    weight, s, gradient = torch.randn(shape), torch.randn(s_shape), torch.randn(shape)
    return weight.to(device), s.to(device), gradient.to(device)


def plain(function: Any) -> Any:
    return function.__wrapped__


def test_small_rows_and_rows_on_a_cpu_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    calls = []
    function = fused(lambda x: calls.append(x))
    function(torch.zeros(fusing.LEAST_VALUES + 1))
    assert len(calls) == 1


def test_what_is_large_and_on_a_gpu_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that says it lies on a GPU."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda f, dynamic: compiled.append(f) or (lambda x: "kernel"))
    monkeypatch.setattr(fusing, "_has_triton", lambda: True)

    class There:
        device = torch.device("cuda")

        def __init__(self, values: int) -> None:
            self.values = values

        def numel(self) -> int:
            return self.values

    function = fused(lambda x: "plain")
    result = [function(There(n)) for n in (fusing.LEAST_VALUES, fusing.LEAST_VALUES - 1, 1 << 22)]
    assert result == ["kernel", "plain", "kernel"]
    assert len(compiled) == 1


def alone(call: str) -> None:
    """Run a check of this module in a process of its own.

    Compiling for a CPU loads setuptools, which refuses to when a library loaded the standard distutils before it.
    """
    code = f"import pytest; from {__name__} import *; {call}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@needs_compiler
def test_a_compiled_threshold_equals_the_plain_one() -> None:
    alone("check_threshold('cpu', (50, 4), (50, 1))")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("s_shape", [(100_000, 1), (100_000, 16)])
def test_a_fused_threshold_equals_the_plain_one_on_a_gpu(s_shape: tuple[int, int]) -> None:
    check_threshold("cuda", (100_000, 16), s_shape)


def check_threshold(device: str, shape: tuple[int, int], s_shape: tuple[int, int]) -> None:
    """Within 1e-6, and gradients within 1e-5."""
    forward = torch.compile(plain(_pruned), dynamic=True)
    backward = torch.compile(plain(_gradients_), dynamic=True)
    weight, s, gradient = drawn(shape, s_shape, device)
    with torch.no_grad():
        want, threshold = plain(_pruned)(weight, s)
        want_gradients = plain(_gradients_)(gradient.clone(), want, threshold)
        got, got_threshold = forward(weight, s)
        got_gradients = backward(gradient.clone(), got, got_threshold)
    assert 0.2 < (want == 0).float().mean() < 0.8
    torch.testing.assert_close((got, got_threshold), (want, threshold), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got_gradients, want_gradients, rtol=1e-5, atol=1e-6)


@needs_compiler
def test_compiled_idle_steps_equal_the_plain_ones() -> None:
    alone("check_idle('cpu', pytest.MonkeyPatch(), 0.1, 40)")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_fused_idle_steps_equal_the_plain_ones_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, decay: float
) -> None:
    check_idle("cuda", monkeypatch, decay, 200_000)


def check_idle(device: str, monkeypatch: pytest.MonkeyPatch, decay: float, count: int) -> None:
    """The whole of `IdleSteps.settle_`, averages too, within 1e-6 of the values."""
    steps = IdleSteps((0.9, 0.999), 1e-8, torch.device(device))
    for number in range(1, 31):
        steps.record(AdamStep(number, 1e-2, decay, decoupled=True))
        steps.average(0.9)
    torch.manual_seed(0)
    last = torch.randint(0, 31, (count,), dtype=torch.int32).to(device)
    m, w = torch.randn(2, count, 8)
    rows = [t.to(device) for t in (w, 0.1 * m, 0.01 * m.square(), 0.5 * w)]
    results = []
    for function in (plain(idle._settle_), torch.compile(plain(idle._settle_), dynamic=True)):
        monkeypatch.setattr(idle, "_settle_", function)
        copied = Rows(*(t.clone() for t in rows))
        steps.settle_(last, [copied])
        results.append(copied.tensors())
    assert (results[0][0] - rows[0]).abs().max() > 1e-2
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)
