"""Dense models in the formats of other runtimes: ONNX Runtime and LiteRT, fp32 and dynamic int8.

Each recipe is the documented one. ONNX: TorchScript's exporter with any number of rows; dynamic quantization of
Gather, MatMul and Gemm, the weights of linear layers per channel. LiteRT: a file for each number of rows, since its
converter takes static shapes; the quantizer's ``dynamic_wi8_afp32``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ondevice.bench.measure.runtime import Program, native, set_threads
from ondevice.quiet import quiet

EXECUTORCH, ONNX, LITERT = "executorch", "onnx", "litert"
ANY = 0  # stands for any number of rows


@dataclass(frozen=True)
class Peer:
    """One program of another runtime.

    Args:
        runtime: a key of `RUNTIMES`.
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


class OnnxProgram:
    """An .onnx file on ONNX Runtime's CPU provider."""

    libraries = ("onnxruntime_pybind11_state",)

    def __init__(self, path: str | Path, num_threads: int) -> None:
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

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


class LiteRTProgram:
    """A .tflite file on LiteRT's interpreter, which hands what it can to XNNPACK."""

    libraries = ("litert",)

    def __init__(self, path: str | Path, num_threads: int) -> None:
        interpreter = importlib.import_module("ai_edge_litert.interpreter")
        with quiet():
            self._interpreter = interpreter.Interpreter(str(path), num_threads=num_threads)
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

    def tensors(self) -> list[dict[str, Any]]:
        """Names, shapes and types of the file's tensors."""
        details: list[dict[str, Any]] = self._interpreter.get_tensor_details()
        return details


RUNTIMES: dict[str, Any] = {EXECUTORCH: ExecutorchProgram, ONNX: OnnxProgram, LITERT: LiteRTProgram}


def make_onnx(module: nn.Module, num_slots: int, rows: Sequence[int], folder: Path) -> dict[str, Peer]:
    """ONNX programs of a plain module, ids to scores: ``onnx fp32`` and ``onnx int8``.

    Raises: RuntimeError: when the quantizer left an embedding table as it was.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain, small = folder / "fp32.onnx", folder / "int8.onnx"
    with quiet(), torch.no_grad():
        torch.onnx.export(
            module,
            (torch.zeros((2, num_slots), dtype=torch.int64),),
            str(plain),
            dynamo=False,
            input_names=["ids"],
            output_names=["scores"],
            dynamic_axes={"ids": {0: "rows"}, "scores": {0: "rows"}},
        )
        quantize_dynamic(
            plain,
            small,
            op_types_to_quantize=["Gather", "MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    table = _table_shape(module)
    bytes_alone = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
    stored = {tuple(each.dims): each.data_type for each in onnx.load(str(small)).graph.initializer}
    if stored.get(table) not in bytes_alone:
        raise RuntimeError(f"ONNX Runtime's quantizer left the table of {list(table)} as it was")
    return {"onnx fp32": Peer(ONNX, {ANY: plain}), "onnx int8": Peer(ONNX, {ANY: small})}


def make_litert(module: nn.Module, num_slots: int, rows: Sequence[int], folder: Path) -> dict[str, Peer]:
    """LiteRT programs of a plain module, ids to scores: ``litert fp32`` and ``litert int8``.

    Raises: RuntimeError: when the quantizer left the embedding table as it was.
    """
    # The converter and the quantizer report their progress on standard output.
    with quiet(), open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        import litert_torch
        from ai_edge_quantizer import Quantizer, recipe

        plain, small = {}, {}
        for count in rows:
            plain[count], small[count] = folder / f"fp32_{count}.tflite", folder / f"int8_{count}.tflite"
            ids = (torch.zeros((count, num_slots), dtype=torch.int64),)
            litert_torch.convert(module, ids).export(str(plain[count]))
            quantizer = Quantizer(str(plain[count]), recipe.dynamic_wi8_afp32())
            quantizer.quantize().export_model(str(small[count]), overwrite=True)
    table = _table_shape(module)
    tensors = LiteRTProgram(small[rows[0]], 1).tensors()
    if not any(tuple(t["shape"]) == table and t["dtype"] == np.int8 for t in tensors):
        raise RuntimeError(f"LiteRT's quantizer left the table of {list(table)} as it was")
    return {"litert fp32": Peer(LITERT, plain), "litert int8": Peer(LITERT, small)}


def _table_shape(module: nn.Module) -> tuple[int, ...]:
    """Shape of the largest table."""
    return max((tuple(m.weight.shape) for m in module.modules() if isinstance(m, nn.Embedding)), key=np.prod)


MAKERS: dict[str, tuple[tuple[str, ...], Callable[..., dict[str, Peer]]]] = {
    ONNX: (("onnx", "onnxruntime"), make_onnx),
    LITERT: (("litert_torch", "ai_edge_quantizer", "ai_edge_litert"), make_litert),
}


def missing_packages(runtime: str) -> list[str]:
    """Packages that programs of this runtime need and that are not installed."""
    return [name for name in MAKERS[runtime][0] if importlib.util.find_spec(name) is None]
