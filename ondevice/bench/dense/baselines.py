"""The programs that torchao and ExecuTorch alone make of a dense model: fp32, int8, int4 and int2 tables.

The recipe is the documented one (per-row weight-only embeddings, int8 dynamic linears, XNNPACK), with what
anyone careful would do besides: batch norm folded into the linears, dropout and the identity id map gone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ondevice.errors import ConfigError, nearest
from ondevice.models.places import Places
from ondevice.quiet import quiet
from ondevice.recommender import Recommender

FORMATS: dict[str, int | None] = {"fp32": None, "int8": 8, "int4": 4, "int2": 2}
_OPERATORS = {8: "embedding_byte", 4: "embedding_4bit", 2: "embedding_2bit"}


class DenseProgram(nn.Module):
    """A dense recommender as plain modules, ids to scores.

    The embedding table is an `nn.Embedding`, the only table that torchao's configurations take.

    Args:
        recommender: a trained recommender whose ids map to themselves.
        zero_row: add a row of zeros to the tables, which a bundle's readers may ask for.

    Shape: ids (B, S) int64 -> scores (B,) float32.

    Raises: ValueError: when ids are remapped, that is, when rows were pruned.
    """

    def __init__(self, recommender: Recommender, zero_row: bool = False) -> None:
        super().__init__()
        if recommender.is_mapped:
            raise ValueError("a dense baseline reads every id's own row, but this recommender remaps ids")
        embedding = recommender.embedding
        self.embedding = _frozen(embedding.table(), zero_row)
        self.first_order = None
        if recommender.first_order is not None:
            self.first_order = _frozen(recommender.first_order.table(), zero_row)
        dims = [embedding.embedding_dim] * recommender.info.num_fields
        self.model = copy.deepcopy(recommender.model).eval().compacted(dims)
        self.pooling = recommender.pooling
        self.places: Places | None = None
        if recommender.others is not None:
            self.places = Places(recommender.info.slots, recommender.unknown)
        elif self.pooling is not None:
            self.register_buffer("absent", self.pooling.absent(recommender.unknown), persistent=False)
        self.register_buffer("bias", recommender.bias.detach().clone())
        self.eval()

    bias: Tensor
    absent: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        if self.places is not None:
            return torch.sigmoid(self.model(*self.places(self.embedding, ids)) + self.bias)
        logits = self.model(self._pooled(self.embedding(ids), ids)) + self.bias
        if self.first_order is not None:
            logits = logits + self._pooled(self.first_order(ids), ids).sum((1, 2))
        return torch.sigmoid(logits)

    def _pooled(self, values: Tensor, ids: Tensor) -> Tensor:
        return values if self.pooling is None else self.pooling(values, self.pooling.matrix(ids, self.absent))


def _frozen(table: Tensor, zero_row: bool) -> nn.Embedding:
    rows = F.pad(table.detach().cpu(), (0, 0, 0, int(zero_row)))
    return nn.Embedding.from_pretrained(rows.clone(), freeze=True)


@dataclass(frozen=True)
class Baseline:
    """One baseline program.

    Args:
        name: fp32, int8, int4 or int2.
        pte: the program's bytes.
        eager: the module it was lowered from, quantized in place.
        max_batch: most rows of one call.
    """

    name: str
    pte: bytes
    eager: nn.Module
    max_batch: int


def make_baseline(
    recommender: Recommender, name: str, *, max_batch: int = 1024, zero_row: bool = False
) -> Baseline:
    """Quantize a dense recommender with torchao and lower it with ExecuTorch.

    First-order weights stay fp32 in every format: torchao 0.18 does not take rows of one value, and a
    per-row scale would make 5 bytes of the 4.

    Args:
        recommender: a trained dense recommender.
        name: one of `FORMATS`.
        max_batch: most rows of one call.
        zero_row: add a row of zeros to the tables.

    Raises:
        UserError: when the format is unknown, or cannot pack rows of this dimension.
        RuntimeError: when a pass that was asked for changed nothing.
    """
    if name not in FORMATS:
        raise ConfigError(f"unknown baseline '{name}' {nearest(name, FORMATS)}")
    bits = FORMATS[name]
    module = DenseProgram(recommender, zero_row)
    if bits is not None:
        per_byte = 8 // bits
        dim = module.embedding.embedding_dim
        if dim % per_byte:
            raise ConfigError(
                f"{name} packs {per_byte} values a byte: embedding.dim {dim} must be a multiple of it"
            )
        _quantize(module, bits)
    program = _lower(module, recommender.info.slots.total, max_batch)
    if bits is not None and f"quantized_decomposed::{_OPERATORS[bits]}.out" not in _operators(program):
        raise RuntimeError(
            f"{name}: the lowered program has no {_OPERATORS[bits]} operator, so its table is not stored in "
            f"{bits} bits; it has {', '.join(_operators(program))}"
        )
    return Baseline(name, bytes(program.buffer), module, max_batch)


def _quantize(module: DenseProgram, bits: int) -> None:
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis

    tables = IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{bits}"), granularity=PerAxis(0))
    linears = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int8, weight_granularity=PerAxis(0))

    def is_table(part: nn.Module, _: str) -> bool:
        return isinstance(part, nn.Embedding) and part.embedding_dim > 1

    def is_linear(part: nn.Module, _: str) -> bool:
        return isinstance(part, nn.Linear)

    _apply(module, lambda: quantize_(module, tables, filter_fn=is_table), is_table, "embedding tables")
    if any(is_linear(part, "") for part in module.modules()):
        _apply(module, lambda: quantize_(module, linears, filter_fn=is_linear), is_linear, "linear layers")


def _apply(
    module: nn.Module, quantize: Callable[[], Any], chosen: Callable[[nn.Module, str], bool], what: str
) -> None:
    """Quantize, and raise when a chosen part kept its plain weight."""
    with quiet():
        quantize()
    parts = [(name, part) for name, part in module.named_modules() if chosen(part, name)]
    plain = [name for name, part in parts if type(part.weight.data) is Tensor]
    if not parts or plain:
        raise RuntimeError(f"torchao quantized {len(parts) - len(plain)} of {len(parts)} {what}: {plain}")


def _lower(module: DenseProgram, num_slots: int, max_batch: int) -> Any:
    ids = torch.zeros((2, num_slots), dtype=torch.int64)
    with quiet(), torch.no_grad():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
        from torch.export import Dim, export
        from torchao.utils import unwrap_tensor_subclass

        unwrap_tensor_subclass(module)
        exported = export(module, (ids,), dynamic_shapes=({0: Dim("batch", min=1, max=max_batch)},))
        edge = to_edge_transform_and_lower(
            exported,
            partitioner=[XnnpackPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        program = edge.to_executorch(ExecutorchBackendConfig(do_quant_fusion_and_const_prop=True))
    if not any(plan.delegates for plan in program.executorch_program.execution_plan):
        raise RuntimeError("XNNPACK took no part of the graph: nothing was delegated")
    return program


def _operators(program: Any) -> list[str]:
    plans = program.executorch_program.execution_plan
    return sorted({f"{op.name}.{op.overload}" for plan in plans for op in plan.operators})
