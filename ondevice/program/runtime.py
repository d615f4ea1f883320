"""A program on the ExecuTorch runtime of this machine."""

from __future__ import annotations

from typing import Any

import numpy as np

from ondevice.errors import UserError
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
            raise UserError(
                "running a bundle needs ExecuTorch; install it with pip install 'ondevice-recommender[export]'"
            ) from None
        except RuntimeError as error:
            raise UserError(f"{name}: the runtime refuses this program: {error}") from None

    def __call__(self, method: str, *inputs: np.ndarray) -> list[np.ndarray]:
        """Run a method on int64 arrays."""
        import torch

        if method not in self._methods:
            with quiet():
                self._methods[method] = self._program.load_method(method)
        outputs = self._methods[method].execute([torch.from_numpy(np.ascontiguousarray(i)) for i in inputs])
        # the next call reuses the output's memory
        return [output.numpy().copy() for output in outputs]

    @property
    def methods(self) -> list[str]:
        """Names of the program's methods."""
        return sorted(self._program.method_names)
