"""Forms of a few operators that XNNPACK takes, so that the scoring part of a program is one delegate.

XNNPACK's partitioner leaves out sums and reshapes with a symbolic size. Each one left out cuts the delegate in
two: a kilobyte more, and a round through the slow portable kernels. Here

- a sum over fixed dimensions is a product with ones, Σ_k x_k = x·1ᵀ, and a factor on it goes into the ones;
- a reshape whose one unknown size is the batch says -1 for it;
- squeezes and unsqueezes are reshapes; a square is a product;
- a product of stacks of matrices is one of a single batch of matrices;
- reshapes move behind additions and a sigmoid, and before a square, so that fewer are left;
- 4-bit weights with a scale per output are named so (torchao calls them one block per row, which XNNPACK takes only
  in blocks of a multiple of 32);
- products with single columns of constant weights that are added up are one product over all their inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from executorch.backends.transforms.utils import create_constant_placeholder, delete_constant_placeholder
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

aten = torch.ops.aten

RESHAPES = {
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.flatten.using_ints,
}


MAX_CAT = 5  # tensors that XNNPACK concatenates at once


def rewrite(program: ExportedProgram, batch: int) -> int:
    """Change the program's graph in place; the number of changed nodes.

    Args:
        program: functional ATen, as ``run_decompositions({})`` leaves it.
        batch: the number of rows where it is fixed; reshapes then do not name it either.
    """
    return _Rewriter(program, batch).run()


class _Rewriter:
    def __init__(self, program: ExportedProgram, batch: int) -> None:
        self.program = program
        self.graph = program.graph
        self.batch = batch
        self.views: dict[tuple[fx.Node, tuple[int, ...]], fx.Node] = {}
        self.mode = next(
            value.fake_mode
            for node in self.graph.nodes
            if (value := node.meta.get("val")) is not None and hasattr(value, "fake_mode")
        )

    def run(self) -> int:
        changed = 0
        for node in list(self.graph.nodes):
            value = node.meta.get("val")
            if node.op != "call_function" or not isinstance(value, torch.Tensor):
                continue
            if value.dtype != torch.float32:
                continue
            with self.graph.inserting_before(node):
                replacement = self._replacement(node, value)
            if replacement is not None:
                node.replace_all_uses_with(replacement)
                self.graph.erase_node(node)
                changed += 1
        self.graph.eliminate_dead_code()
        for node in list(self.graph.nodes):
            if not getattr(node, "_erased", False) and _is_sum(node) and not any(map(_is_sum, node.users)):
                with self.graph.inserting_before(node):
                    replacement = self._merged_products(node)
                if replacement is not None:
                    node.replace_all_uses_with(replacement)
                    self.graph.eliminate_dead_code()
                    changed += 1
        for node in list(self.graph.nodes):
            if node.op == "placeholder" and not node.users and node.name in self._constant_names():
                delete_constant_placeholder(self.program, node)  # else it is stored all the same
        self.program.graph_module.recompile()
        return changed

    def _replacement(self, node: fx.Node, value: torch.Tensor) -> fx.Node | None:
        if node.target == torch.ops.torchao.dequantize_affine.default:
            return self._by_channel(node)
        if node.target in RESHAPES:
            return self._reshape(node.args[0], value.shape)
        if node.target == aten.sum.dim_IntList:
            return self._sum(node, value)
        if node.target == aten.matmul.default:
            return self._matmul(node, value)
        if node.target == aten.square.default or (
            node.target == aten.pow.Tensor_Scalar and node.args[1] == 2
        ):
            return self._new(aten.mul.Tensor, node.args[0], node.args[0])
        if node.target == aten.mul.Tensor and isinstance(node.args[1], float):
            scaled = self._scaled(_source(node.args[0]), node.args[1])
            return None if scaled is None else self._reshape(scaled, value.shape)
        if node.target in (aten.add.Tensor, aten.sub.Tensor) and not node.kwargs:
            left, right = _source(node.args[0]), _source(node.args[1])
            if _is_column(left) and _is_column(right) and (left, right) != node.args:
                return self._reshape(self._new(node.target, left, right), value.shape)
        if node.target == aten.sigmoid.default and _is_column(source := _source(node.args[0])):
            return self._reshape(self._new(aten.sigmoid.default, source), value.shape)
        return None

    def _by_channel(self, node: fx.Node) -> fx.Node | None:
        """4-bit weights with a scale per output, in the form that XNNPACK takes for any number of inputs."""
        arguments: Any = node.args
        weights, block, scale, zero_point, _, low, high, *_ = arguments
        values = [self._constant(n) for n in (weights, scale, zero_point)]
        if (low, high) != (-8, 7) or any(v is None for v in values) or list(block) != [1, values[0].shape[1]]:
            return None
        flat = [
            self._add_constant(f"{node.name}_{name}", value.flatten().to(dtype))
            for name, value, dtype in (("scale", values[1], torch.float32), ("zero", values[2], torch.int64))
        ]
        target = torch.ops.quantized_decomposed.dequantize_per_channel.default
        return self._new(target, weights, *flat, 0, low, high, torch.int8)

    def _new(self, target: Callable[..., Any], *args: Any) -> fx.Node:
        node = self.graph.call_function(target, args)
        with self.mode:
            node.meta["val"] = target(*fx.map_arg(args, lambda a: a.meta["val"]))
        return node

    def _reshape(self, source: Any, shape: Sequence[Any]) -> fx.Node | None:
        """A view with -1 for the batch, taken from before a chain of views."""
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        if -1 not in sizes and sizes and sizes[0] == self.batch:
            sizes[0] = -1
        if sizes.count(-1) > 1:
            return None
        source = _source(source)
        if source.target == aten.mul.Tensor and source.args[0] is source.args[1]:
            root = self._view(source.args[0], sizes)
            return self._new(aten.mul.Tensor, root, root)
        return self._view(source, sizes)

    def _view(self, source: Any, sizes: list[int]) -> fx.Node:
        source, key = _source(source), tuple(sizes)
        if (source, key) not in self.views:
            self.views[source, key] = self._new(aten.view.default, source, sizes)
        return self.views[source, key]

    def _sum(self, node: fx.Node, value: torch.Tensor) -> fx.Node | None:
        source: Any = node.args[0]
        sizes = list(source.meta["val"].shape)
        rank = len(sizes)
        given: Any = node.args[1] or range(rank)
        summed = sorted(d % rank for d in given)
        kept = [d for d in range(rank) if d not in summed]
        if not all(isinstance(sizes[d], int) for d in summed):
            return None
        if kept + summed != list(range(rank)):
            source, kept = self._unviewed(source, kept, summed)
            sizes = list(source.meta["val"].shape)
            source = self._new(aten.permute.default, source, kept + summed)
        count = 1
        for d in summed:
            count *= sizes[d]
        if len(summed) > 1:
            flat = self._reshape(source, [sizes[d] for d in kept] + [count])
            if flat is None:
                return None
            source = flat
        product = self._new(aten.linear.default, source, self._equal_weights(count, 1.0))
        return self._reshape(product, value.shape)

    def _unviewed(self, node: Any, kept: list[int], summed: list[int]) -> tuple[Any, list[int]]:
        """What is summed, and the dimensions that the sum keeps, without a view that only joins or splits later ones.

        The result of the sum is given its shape afterwards, so that such a view is not needed.
        """
        source, last = _source(node), max(summed) + 1
        shape, shown = source.meta["val"].shape, node.meta["val"].shape
        if source is node or shape[:last] != shown[:last] or shape[last:].numel() != shown[last:].numel():
            return node, kept
        return source, [d for d in range(len(shape)) if d not in summed]

    def _matmul(self, node: fx.Node, value: torch.Tensor) -> fx.Node | None:
        """A product of two stacks of matrices as one batch of matrices."""
        factors: Any = node.args
        left, right = (list(arg.meta["val"].shape) for arg in factors)
        if len(left) < 4 or len(left) != len(right) or left[:-2] != right[:-2]:
            return None
        flat = []
        for arg, shape in zip(node.args, (left, right), strict=True):
            arg = self.graph.call_function(
                aten.clone.default, (arg,), {"memory_format": torch.contiguous_format}
            )
            with self.mode:
                arg.meta["val"] = aten.clone.default(
                    arg.args[0].meta["val"], memory_format=torch.contiguous_format
                )
            flat.append(self._view(arg, [-1, *shape[-2:]]))
        return self._reshape(self._new(aten.bmm.default, *flat), value.shape)

    def _equal_weights(self, count: int, weight: float) -> fx.Node:
        name = f"equal_{count}_{weight}".replace(".", "_").replace("-", "m")
        return self._add_constant(name, torch.full((1, count), weight))

    def _scaled(self, node: Any, factor: float) -> fx.Node | None:
        """``node`` times a factor, when it is made of products with equal weights and nothing else uses it."""
        if not isinstance(node, fx.Node) or sum(bool(user.users) for user in node.users) > 1:
            return None
        if node.target in (aten.add.Tensor, aten.sub.Tensor) and not node.kwargs:
            parts = [self._scaled(_source(part), factor) for part in node.args]
            if any(part is None for part in parts):
                return None
            return self._new(node.target, *parts)
        if node.target != aten.linear.default or len(node.args) != 2:
            return None
        weights: Any = node.args[1]
        if not weights.name.startswith("equal_"):
            return None
        count = weights.meta["val"].shape[1]
        value = float(self.program.state_dict[weights.target][0, 0]) * factor
        return self._new(aten.linear.default, node.args[0], self._equal_weights(count, value))

    def _merged_products(self, root: fx.Node) -> fx.Node | None:
        """Σ ±x_i·w_iᵀ ± rest as [x_1, x_2, …]·[±w_1, ±w_2, …]ᵀ ± rest."""
        terms = _terms(root)
        products = [(sign, node) for sign, node in terms if self._constant_product(node)]
        if not 2 <= len(products) <= MAX_CAT:
            return None
        weights, bias = [], torch.zeros(1)
        for sign, node in products:
            weights.append(sign * self._constant(node.args[1]))
            if len(node.args) > 2 and node.args[2] is not None:
                bias += sign * self._constant(node.args[2])
        joined = self._new(aten.cat.default, [node.args[0] for _, node in products], 1)
        total = self._new(
            aten.linear.default,
            joined,
            self._add_constant(f"merged_{root.name}_weight", torch.cat(weights, 1)),
            self._add_constant(f"merged_{root.name}_bias", bias),
        )
        for sign, node in terms:
            if (sign, node) not in products:
                total = self._new(aten.add.Tensor if sign > 0 else aten.sub.Tensor, total, node)
        return total

    def _constant_product(self, node: fx.Node) -> bool:
        """Whether it is a product of rows (B, K) with float weights (1, K), used once."""
        if node.target != aten.linear.default or len(node.users) > 1:
            return False
        inputs: Any
        inputs, *weights = node.args
        return len(inputs.meta["val"].shape) == 2 and all(
            w is None
            or (isinstance(w, fx.Node) and (c := self._constant(w)) is not None and c.is_floating_point())
            for w in weights
        )

    def _constant_names(self) -> Mapping[str, str]:
        """Parameters and buffers by the placeholders that stand for them."""
        signature = self.program.graph_signature
        return {**signature.inputs_to_parameters, **signature.inputs_to_buffers}

    def _constant(self, node: Any) -> Any:
        """The tensor behind a placeholder; None for anything else."""
        names = self._constant_names()
        if node.op != "placeholder" or node.name not in names:
            return None
        name = names[node.name]
        value = self.program.state_dict.get(name, self.program.constants.get(name))
        return None if value is None else value.detach()

    def _add_constant(self, name: str, data: torch.Tensor) -> fx.Node:
        with self.graph.inserting_before(next(iter(self.graph.nodes))):
            return create_constant_placeholder(
                self.program, self.graph, name, InputKind.BUFFER, data, persistent_buffer=True
            )


def _is_sum(node: fx.Node) -> bool:
    return node.target in (aten.add.Tensor, aten.sub.Tensor) and not node.kwargs and _is_column(node)


def _terms(node: fx.Node, sign: int = 1) -> list[tuple[int, fx.Node]]:
    """The columns that a tree of additions and subtractions adds up, with their signs."""
    if not _is_sum(node) or not all(isinstance(arg, fx.Node) and _is_column(arg) for arg in node.args):
        return [(sign, node)]
    left: Any
    right: Any
    left, right = node.args
    return _terms(left, sign) + _terms(right, sign if node.target == aten.add.Tensor else -sign)


def _source(node: Any) -> Any:
    """What a chain of views shows."""
    while isinstance(node, fx.Node) and node.target == aten.view.default:
        node = node.args[0]
    return node


def _is_column(node: Any) -> bool:
    """Whether it is one float per row of the batch, (B, 1)."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return False
    shape = node.meta["val"].shape
    return len(shape) == 2 and isinstance(shape[1], int) and shape[1] == 1
