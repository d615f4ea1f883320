"""A program on the ExecuTorch runtime of this machine."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ondevice.bundle.manifest_check import ITEMS
from ondevice.errors import DamagedFile, MissingPackage, UserError, nearest
from ondevice.quiet import quiet


class LoadedProgram:
    """Methods of a .pte, loaded when first called.

    Args:
        data: the .pte.
        name: its file name, for messages.

    Raises: UserError: when ExecuTorch is absent or refuses the program.
    """

    def __init__(self, data: bytes, name: str = "model.pte") -> None:
        self.name = name
        self._data = data  # the program reads from these bytes as long as it lives
        self._methods: dict[str, Any] = {}
        try:
            with quiet():
                import executorch.kernels.quantized  # noqa: F401  the operators that Android has and this lacks
                from executorch.runtime import Runtime

                self._program = Runtime.get().load_program(data)
        except ImportError:
            raise MissingPackage(
                "running a bundle needs ExecuTorch; install it with pip install 'ondevice-recommender[export]'"
            ) from None
        except RuntimeError as error:
            raise DamagedFile(f"{name}: the runtime refuses this program: {error}; export it again") from None

    def __call__(self, method: str, *inputs: np.ndarray) -> list[np.ndarray]:
        """Run a method on int64 arrays; of a program that has them, vectors of its items are given beside them.

        Raises: UserError: when the program lacks the method, or the runtime cannot run it on these arrays.
        """
        if method != ITEMS and ITEMS in self.methods:
            inputs = (*inputs, self.item_vectors)
        return self._run(method, *inputs)

    @cached_property
    def item_vectors(self) -> np.ndarray:
        """What ``items`` returns, worked out once; the memory that it took to do so is given back."""
        (vectors,) = self._run(ITEMS)
        del self._methods[ITEMS]
        return vectors

    def _run(self, method: str, *inputs: np.ndarray) -> list[np.ndarray]:
        import torch

        if method not in self.methods:
            raise UserError(f"{self.name}: no method '{method}' {nearest(method, self.methods)}")
        shapes = ", ".join(str(each.shape) for each in inputs)
        if not all(each.size for each in inputs):  # the runtime would end this process
            raise UserError(f"{self.name}: '{method}' got arrays of shape {shapes}; give at least one row")
        try:
            if method not in self._methods:
                with quiet():
                    self._methods[method] = self._program.load_method(method)
            arrays = [torch.from_numpy(np.ascontiguousarray(each)) for each in inputs]
            outputs = self._methods[method].execute(arrays)
        except RuntimeError as error:
            raise UserError(
                f"{self.name}: the runtime cannot run '{method}' on arrays of shape {shapes}: {error}; give int64 "
                "rows of the manifest's shapes, at most as many as it names and none below 0, or export it again"
            ) from None
        # the next call reuses the output's memory
        return [output.numpy().copy() for output in outputs]

    @property
    def methods(self) -> list[str]:
        """Names of the program's methods."""
        return sorted(self._program.method_names)
