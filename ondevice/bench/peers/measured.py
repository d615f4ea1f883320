"""Programs of several runtimes as they are timed: the runtime's library alone, ids made ready beforehand."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ondevice.bench.measure.runtime import Program, native, set_threads
from ondevice.errors import UserError
from ondevice.quiet import quiet

EXECUTORCH, ONNX, LITERT = "executorch", "onnx", "litert"
ANY = 0  # stands for any number of rows


@dataclass(frozen=True)
class Peer:
    """One program of another runtime.

    Args:
        runtime: name of its target.
        files: its file for each number of rows, or for `ANY`.
    """

    runtime: str
    files: dict[int, Path]

    def file(self, rows: int) -> Path:
        """The file that takes so many rows."""
        return self.files[rows] if rows in self.files else self.files[ANY]


class ExecutorchProgram:
    """A .pte file, called as the other runtimes' programs are."""

    libraries = ("_portable_lib", "quantized_ops_aot_lib")

    def __init__(self, path: str | Path, num_threads: int) -> None:
        self._forward = Program(path).method("forward")

    @staticmethod
    def load(num_threads: int) -> None:
        """Load the runtime's library."""
        native()
        set_threads(num_threads)

    def prepare(self, ids: Tensor) -> Any:
        """Ids as the runtime takes them."""
        return (ids,)

    def run(self, prepared: Any) -> np.ndarray:
        """Scores of prepared ids."""
        scores: np.ndarray = self._forward(prepared)[0].numpy()
        return scores


class _Forward(ABC):
    """A program of one method, ids to scores, called as any target's is."""

    methods = ("forward",)

    def __call__(self, method: str, *inputs: np.ndarray) -> list[np.ndarray]:
        if method not in self.methods or len(inputs) != 1:
            raise UserError(
                f"'{method}' of {len(inputs)} arrays: the program has forward alone, of one array"
            )
        return [np.array(self.run(self.prepare(torch.from_numpy(np.ascontiguousarray(inputs[0])))))]

    @abstractmethod
    def prepare(self, ids: Tensor) -> Any:
        """Ids as the runtime takes them."""

    @abstractmethod
    def run(self, prepared: Any) -> np.ndarray:
        """Scores of prepared ids."""


class OnnxProgram(_Forward):
    """An .onnx file, or its content, on ONNX Runtime's CPU provider."""

    libraries = ("onnxruntime_pybind11_state",)

    def __init__(self, source: str | Path | bytes, num_threads: int) -> None:
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        self._session = runtime.InferenceSession(
            source if isinstance(source, bytes) else str(source), options, providers=["CPUExecutionProvider"]
        )

    @staticmethod
    def load(num_threads: int) -> None:
        """Load the runtime's library."""
        importlib.import_module("onnxruntime")

    def prepare(self, ids: Tensor) -> Any:
        """Ids as the runtime takes them."""
        return {"ids": ids.numpy()}

    def run(self, prepared: Any) -> np.ndarray:
        """Scores of prepared ids."""
        scores: np.ndarray = self._session.run(None, prepared)[0]
        return scores


class LiteRTProgram(_Forward):
    """A .tflite file, or its content, on LiteRT's interpreter, which hands what it can to XNNPACK."""

    libraries = ("litert",)

    def __init__(self, source: str | Path | bytes, num_threads: int) -> None:
        interpreter = importlib.import_module("ai_edge_litert.interpreter")
        with quiet():
            given = {"model_content": source} if isinstance(source, bytes) else {"model_path": str(source)}
            self._interpreter = interpreter.Interpreter(**given, num_threads=num_threads)
            self._interpreter.allocate_tensors()
        (ids,) = self._interpreter.get_input_details()
        (scores,) = self._interpreter.get_output_details()
        self._ids, self._scores, self._type = ids["index"], scores["index"], ids["dtype"]

    @staticmethod
    def load(num_threads: int) -> None:
        """Load the runtime's library."""
        importlib.import_module("ai_edge_litert.interpreter")

    def prepare(self, ids: Tensor) -> Any:
        """Ids as the runtime takes them."""
        return ids.numpy().astype(self._type)

    def run(self, prepared: Any) -> np.ndarray:
        """Scores of prepared ids, as many as the file was made for."""
        self._interpreter.set_tensor(self._ids, prepared)
        self._interpreter.invoke()
        scores: np.ndarray = self._interpreter.get_tensor(self._scores)
        return scores


RUNTIMES: dict[str, Any] = {EXECUTORCH: ExecutorchProgram, ONNX: OnnxProgram, LITERT: LiteRTProgram}
"""The timed program of each target."""
