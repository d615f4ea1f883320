"""XNNPACK's passes over a graph that is delegated to it, but for those that have nothing to change there.

Each of its seventeen traces the whole graph anew whatever it did, which took most of the time of an export. A pass is
left out where the operators that it looks for do not occur; one that is not known here runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from executorch.backends.xnnpack import xnnpack_preprocess
from executorch.backends.xnnpack._passes import XNNPACKPassManager
from torch import fx
from torch.export import ExportedProgram

BATCH_NORMS = ("aten.native_batch_norm.default", "aten._native_batch_norm_legit_no_training.default")
CHANNELS_LAST = (
    "aten.convolution.default",
    "aten.upsample_bilinear2d.vec",
    "aten.mean.dim",
    "aten.max_pool2d.default",
    "aten.max_pool2d_with_indices.default",
    "aten.amax.default",
    "aten.max.dim",
    "aten.avg_pool2d.default",
    "aten.prelu.default",
    "aten._prelu_kernel.default",
)
"""What is computed with channels last, and what becomes that in an earlier pass."""
MOST_JOINED = 5  # tensors that XNNPACK concatenates at once


def occurs(*names: str) -> Callable[[fx.Node], bool]:
    """Whether a node is a call of one of some operators."""
    return lambda node: getattr(node.target, "__name__", "") in names


def is_long_cat(node: fx.Node) -> bool:
    return occurs("aten.cat.default")(node) and len(node.args[0]) > MOST_JOINED  # type: ignore[arg-type]


def is_image(node: fx.Node) -> bool:
    """Whether a node's values have the four dimensions of which one may be channels."""
    return len(getattr(node.meta.get("val"), "shape", ())) == 4


LOOKED_FOR: dict[str, Callable[[fx.Node], bool]] = {
    "DimOrderOpsRevertPass": lambda node: "dim_order" in getattr(node.target, "__name__", ""),
    "ConvertToUpsampleBilinear2d": occurs("aten.upsample_bilinear2d.vec"),
    "PropagateCustomMetaPass": lambda node: "custom" in node.meta,
    "ConvertToSDPAPass": occurs("aten.mul.Scalar"),
    "ConstPropPass": lambda node: node.op == "call_function" and not node.all_input_nodes,
    "FuseBatchNormPass": occurs(*BATCH_NORMS),
    "DecomposeBatchNorm": occurs(*BATCH_NORMS),
    "FuseActivationPass": occurs("aten.relu.default", "aten.hardtanh.default"),
    "DecomposeConcatenate": is_long_cat,
    "RemoveGetItemPass": occurs("aten.max_pool2d_with_indices.default", "aten.max.dim"),
    "Conv1dUnsqueezePass": occurs("aten.convolution.default"),
    "PReLUReshapePass": occurs("aten._prelu_kernel.default"),
    "ChannelsLastTaggedReshapePass": lambda node: occurs(*CHANNELS_LAST)(node) or is_image(node),
    "RemoveRedundantCopyPass": occurs("aten._to_copy.default"),
}
"""By the name of a pass, whether it may change a node, or something beside it."""


class NeededPasses(XNNPACKPassManager):
    """XNNPACK's manager, which asks before each pass whether a node is there that it looks for."""

    def transform(self) -> ExportedProgram:
        program = self.exported_program
        for each in self.passes:
            looks_for = LOOKED_FOR.get(each.__name__, lambda _: True)
            if any(map(looks_for, program.graph.nodes)):
                program = XNNPACKPassManager(program, [each]).transform()
        return program


@contextmanager
def needed_passes_alone() -> Iterator[None]:
    """Within the block, XNNPACK runs no pass that has nothing to change."""
    manager = xnnpack_preprocess.XNNPACKPassManager
    xnnpack_preprocess.XNNPACKPassManager = NeededPasses
    try:
        yield
    finally:
        xnnpack_preprocess.XNNPACKPassManager = manager
