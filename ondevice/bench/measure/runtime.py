"""ExecuTorch's runtime as small as Python can have it: no exporter, threads as asked, no noise.

``executorch.runtime`` imports the whole exporter (7 s and 230 MB); what is measured here is the native
library alone, in processes that hold nothing else.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ondevice.quiet import quiet


def native() -> Any:
    """ExecuTorch's native module with the quantized kernels registered.

    Raises: ModuleNotFoundError: when executorch is not installed.
    """
    library = importlib.import_module("executorch.extension.pybindings._portable_lib")
    if "quantized_decomposed::embedding_byte.out" not in library._get_operator_names():
        root = Path(next(iter(importlib.import_module("executorch").__path__)))
        kernels = sorted((root / "kernels" / "quantized").glob("*quantized_ops_aot_lib.*"))
        if not kernels:
            raise ModuleNotFoundError(
                f"executorch in {root} has no quantized kernels; install executorch>=1.4.1"
            )
        with quiet():
            torch.ops.load_library(str(kernels[0]))
    return library


def set_threads(num_threads: int) -> None:
    """Make ExecuTorch's thread pool ``num_threads`` wide; only before the process runs its first program.

    The pool belongs to the process and XNNPACK keeps what it was given when a method was loaded, which is
    why each number of threads is measured in a process of its own.

    Raises: RuntimeError: when the pool does not take that width.
    """
    library = native()
    with quiet():
        library._unsafe_reset_threadpool(num_threads)
        got = library._threadpool_get_thread_count()
    if got != num_threads:
        raise RuntimeError(f"ExecuTorch's thread pool has {got} threads after asking for {num_threads}")


class Program:
    """A .pte file mapped into memory.

    Args:
        path: the file.

    Raises: ValueError: when it is no program that this runtime can load.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        library = native()
        with quiet():
            try:
                self._program = library._load_program(str(self.path))
            except RuntimeError as error:
                raise ValueError(f"{self.path}: not a program this runtime can load: {error}") from error
        self._methods: dict[str, Any] = {}

    @property
    def method_names(self) -> list[str]:
        """Names of the methods in the file."""
        return [self._program.get_method_name(i) for i in range(self._program.num_methods())]

    def method(self, name: str) -> Any:
        """The loaded method: call it with a tuple of tensors, get a list of tensors."""
        if name not in self._methods:
            if name not in self.method_names:
                raise ValueError(
                    f"{self.path}: no method '{name}'; there are: {', '.join(self.method_names)}"
                )
            with quiet():
                self._methods[name] = self._program.load_method(name)
        return self._methods[name]

    def run(self, name: str, *inputs: Tensor) -> list[Tensor]:
        """Outputs of one call; they are copies, so the next call leaves them as they are."""
        return list(self.method(name)(inputs))
