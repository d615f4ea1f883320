"""Dense models in the formats of other runtimes: ONNX Runtime and LiteRT, fp32 and dynamic int8.

Each recipe is the documented one. ONNX: TorchScript's exporter with any number of rows; dynamic quantization of
Gather, MatMul and Gemm, the weights of linear layers per channel. LiteRT: a file for each number of rows, since its
converter takes static shapes; the quantizer's ``dynamic_wi8_afp32``. They are targets like the one that ships, and for
comparison alone.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim

from ondevice.bench.peers.measured import ANY, LITERT, ONNX, LiteRTProgram, OnnxProgram, Peer
from ondevice.errors import DamagedFile, UserError
from ondevice.program.endpoints import MAX_BATCH, Endpoint
from ondevice.program.target import TARGETS, Constant, Inspection, Lowered, Target
from ondevice.quiet import quiet

CONSTANTS, OVERHEAD = "constants", "program_overhead"


class PeerTarget(Target):
    """A runtime beside the one that ships, which stores a program in int8 by a tool of its own."""

    suffix: str
    """Of its files."""

    def quantize(self, data: bytes) -> bytes:
        """The same program with int8 weights, quantized dynamically."""
        with quiet(), tempfile.TemporaryDirectory() as folder:
            plain, small = Path(folder) / f"fp32.{self.suffix}", Path(folder) / f"int8.{self.suffix}"
            plain.write_bytes(data)
            self.quantize_file(plain, small)
            return small.read_bytes()

    @abstractmethod
    def quantize_file(self, plain: Path, small: Path) -> None:
        """Read a program of floats, and write it with int8 weights."""


def _forward(endpoints: Mapping[str, Endpoint]) -> Endpoint:
    if list(endpoints) != ["forward"]:
        raise UserError(f"got the endpoints {', '.join(endpoints)}; peers have forward alone")
    return endpoints["forward"]


def _taken_apart(data: bytes, constants: list[Constant], ops: Sequence[str]) -> Inspection:
    stored = sum(constant.num_bytes for constant in constants)
    parts = {CONSTANTS: stored, OVERHEAD: len(data) - stored}
    return Inspection(len(data), parts, constants, ["forward"], tuple(sorted(set(ops))))


@TARGETS.register(ONNX)
class Onnx(PeerTarget):
    """Programs of ONNX Runtime."""

    packages = ("onnx", "onnxruntime")
    suffix = "onnx"

    def lower(self, endpoints: Mapping[str, Endpoint]) -> Lowered:
        endpoint = _forward(endpoints)
        with quiet(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "fp32.onnx"
            torch.onnx.export(
                endpoint.module,
                endpoint.example,
                str(file),
                dynamo=False,
                input_names=["ids"],
                output_names=["scores"],
                dynamic_axes={"ids": {0: "rows"}, "scores": {0: "rows"}},
            )
            data = file.read_bytes()
        return Lowered(data, self.inspect(data).ops)

    def quantize_file(self, plain: Path, small: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            plain,
            small,
            op_types_to_quantize=["Gather", "MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )

    def open(self, data: bytes, name: str = "program") -> OnnxProgram:
        return OnnxProgram(data, 1)

    def inspect(
        self, data: bytes, name: str = "program", *, first_order_rows: int | None = None
    ) -> Inspection:
        import onnx
        from google.protobuf.message import DecodeError

        try:
            graph = onnx.load_from_string(data).graph
        except DecodeError as error:
            raise DamagedFile(f"{name}: no ONNX program: {error}") from None
        constants = [
            Constant(CONSTANTS, onnx.numpy_helper.to_array(tensor).nbytes, tuple(tensor.dims))
            for tensor in graph.initializer
        ]
        return _taken_apart(data, constants, [node.op_type for node in graph.node])


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """LiteRT's converter and quantizer report their progress on standard output."""
    with quiet(), open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        yield


@TARGETS.register(LITERT)
class LiteRT(PeerTarget):
    """Programs of LiteRT's interpreter, each for one number of rows."""

    packages = ("litert_torch", "ai_edge_quantizer", "ai_edge_litert")
    takes_any_rows = False
    suffix = "tflite"

    def lower(self, endpoints: Mapping[str, Endpoint]) -> Lowered:
        endpoint = _forward(endpoints)
        with _silent(), tempfile.TemporaryDirectory() as folder:
            import litert_torch

            file = Path(folder) / "fp32.tflite"
            litert_torch.convert(endpoint.module, endpoint.example).export(str(file))
            data = file.read_bytes()
        return Lowered(data, self.inspect(data).ops)

    def quantize_file(self, plain: Path, small: Path) -> None:
        with _silent():
            from ai_edge_quantizer import Quantizer, recipe

            quantizer = Quantizer(str(plain), recipe.dynamic_wi8_afp32())
            quantizer.quantize().export_model(str(small), overwrite=True)

    def open(self, data: bytes, name: str = "program") -> LiteRTProgram:
        return LiteRTProgram(data, 1)

    def inspect(
        self, data: bytes, name: str = "program", *, first_order_rows: int | None = None
    ) -> Inspection:
        from ai_edge_litert import schema_py_generated as schema

        if data[4:8] != b"TFL3":
            raise DamagedFile(f"{name}: no LiteRT program; its file does not begin with TFL3")
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        (graph,) = model.subgraphs
        stored = [len(buffer.data) if buffer.data is not None else buffer.size for buffer in model.buffers]
        constants = [
            Constant(CONSTANTS, stored[tensor.buffer], tuple(int(size) for size in tensor.shape))
            for tensor in graph.tensors
            if stored[tensor.buffer]
        ]
        names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
        codes = [model.operatorCodes[operator.opcodeIndex] for operator in graph.operators]
        return _taken_apart(data, constants, [names[code.builtinCode] for code in codes])


def peers() -> dict[str, PeerTarget]:
    """The targets beside the one that ships."""
    targets = {name: TARGETS[name]() for name in TARGETS}
    return {name: target for name, target in targets.items() if isinstance(target, PeerTarget)}


def dense_endpoint(module: nn.Module, num_slots: int, rows: int = 2) -> Endpoint:
    """The endpoint of a plain module, ids to scores, with an example of so many rows."""
    example = (torch.zeros((rows, num_slots), dtype=torch.int64),)
    batch = {0: Dim("batch", min=1, max=MAX_BATCH)}
    return Endpoint(module, example, (batch,), MAX_BATCH, {})


def make_programs(
    name: str, module: nn.Module, num_slots: int, rows: Sequence[int], folder: Path
) -> dict[str, Peer]:
    """Programs of a plain module, ids to scores, in fp32 and in int8: ``onnx fp32`` and so on.

    Args:
        name: of the target.
        module: it.
        num_slots: ids of a row.
        rows: numbers of rows that they are called with.
        folder: where their files go.

    Raises: RuntimeError: when the quantizer left the largest table as it was.
    """
    target = peers()[name]
    tables = [tuple(m.weight.shape) for m in module.modules() if isinstance(m, nn.Embedding)]
    table = max(tables, key=math.prod)
    files: dict[str, dict[int, Path]] = {"fp32": {}, "int8": {}}
    for count in (ANY,) if target.takes_any_rows else rows:
        endpoint = dense_endpoint(module, num_slots, count or 2)
        plain = target.lower({"forward": endpoint}).data
        small = target.quantize(plain)
        constants = target.inspect(small).constants
        if not any(each.shape == table and each.num_bytes == math.prod(table) for each in constants):
            raise RuntimeError(f"the quantizer of {name} left the table of {list(table)} as it was")
        for kind, data in (("fp32", plain), ("int8", small)):
            files[kind][count] = folder / f"{kind}{f'_{count}' if count else ''}.{target.suffix}"
            files[kind][count].write_bytes(data)
    return {f"{name} {kind}": Peer(name, each) for kind, each in files.items()}
