"""From endpoints in PyTorch to the bytes of a .pte that the stock runtime executes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch._ops import OpOverload
from torch.export import ExportedProgram, export

from ondevice.bundle.manifest_check import ITEM_VECTORS
from ondevice.errors import UserError
from ondevice.program.endpoints import Endpoint
from ondevice.program.pte import program_requirements
from ondevice.program.slim import slim
from ondevice.program.stock import check_stock
from ondevice.program.target import Lowered
from ondevice.quiet import quiet


def load_exporter() -> None:
    """Import what `lower` needs, which takes seconds and a few hundred megabytes."""
    with quiet():
        import executorch.backends.xnnpack.partition.xnnpack_partitioner
        import executorch.exir  # noqa: F401

        from ondevice.program import rewrite, xnnpack_passes  # noqa: F401


def lower(endpoints: Mapping[str, Endpoint], *, delegate: bool = True) -> Lowered:
    """Export, delegate to XNNPACK, serialize, and write again in fewer bytes.

    Constant propagation (``do_quant_fusion_and_const_prop``) stays off: over a catalog held in the program it
    would replace the lookups by their float32 results, the weights a second time. Quantization is explicit in
    the graph, so there is nothing for it to fuse either.

    Dimension orders are skipped, which only change which operator converts integers: `aten::_to_copy` takes a fifth of
    a nanosecond for a code where `_to_dim_order_copy` takes eight (docs/ablations.md, "The rest of the bundle").

    Args:
        endpoints: what `endpoints.make_endpoints` made.
        delegate: hand what XNNPACK can compute to XNNPACK.

    Raises: UserError: when nothing was delegated, or the stock Android runtime lacks an operator.
    """
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
        from executorch.exir.passes import MemoryPlanningPass

        from ondevice.program.rewrite import rewrite
        from ondevice.program.xnnpack_passes import needed_passes_alone

        exported = {}
        for name, endpoint in endpoints.items():
            program = export(
                endpoint.module, endpoint.example, dynamic_shapes=endpoint.dynamic_shapes, strict=False
            )
            program = program.run_decompositions({})
            if delegate:
                rewrite(program, endpoint.batch)
            exported[name] = _functional(program)
        with needed_passes_alone():
            edge = to_edge_transform_and_lower(
                exported,
                partitioner=[XnnpackPartitioner()] if delegate else [],
                compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
            )
        num_delegated, num_portable = _count(edge, endpoints)
        # What `items` returns is as large as the table: it is read where it is, and not copied at each call.
        memory = {
            name: MemoryPlanningPass(alloc_graph_input=not _reads_items(endpoints[name]))
            for name in endpoints
        }
        config = ExecutorchBackendConfig(segment_alignment=16, memory_planning_pass=memory)
        finished = edge.to_executorch(config).buffer
    if delegate and num_delegated == 0:
        raise UserError(
            "delegation to XNNPACK was asked for but took no operator; export with delegate=False"
        )
    data = slim(finished, {name: endpoint.batch for name, endpoint in endpoints.items()})
    ops, backends = program_requirements(data)
    check_stock([*ops, *backends])
    return Lowered(data, ops, backends, num_delegated, num_portable)


def _reads_items(endpoint: Endpoint) -> bool:
    return any(tensor["name"] == ITEM_VECTORS for tensor in endpoint.signature.get("inputs", ()))


def _functional(program: ExportedProgram) -> ExportedProgram:
    """The program, of which ExecuTorch does not ask again what it is: functional ATen.

    Its first step decomposes nothing, `run_decompositions({})`, which here was done before; that traces the whole
    program once more, a tenth of the time of an export, and changes no byte.
    """

    def run_decompositions(table: dict[OpOverload, Callable] | None = None) -> ExportedProgram:
        is_empty = type(table) is dict and not table  # ExecuTorch's own table only seems to be
        return program if is_empty else decompose(table)

    decompose = program.run_decompositions
    program.run_decompositions = run_decompositions  # type: ignore[method-assign]
    return program


def _count(edge: object, endpoints: Mapping[str, Endpoint]) -> tuple[int, int]:
    """Operators inside and outside delegates."""
    inside = outside = 0
    for name in endpoints:
        graph_module = edge.exported_program(name).graph_module  # type: ignore[attr-defined]
        for node in graph_module.graph.nodes:
            if node.op == "get_attr":
                lowered = getattr(graph_module, str(node.target))
                original = lowered.original_module.graph_module
                inside += sum(n.op == "call_function" for n in original.graph.nodes)
            elif node.op == "call_function" and not node.name.startswith(
                ("executorch_call_delegate", "getitem")
            ):
                outside += 1
    return inside, outside
