"""What the bytes of a .pte file are, read from the file itself.

A .pte is a flatbuffer (graph, operators, tensor shapes), then segments: the constants of the graph, a payload
for each delegate, and the weights that delegates share by name. A constant is named by what reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ondevice.errors import DamagedFile
from ondevice.program.flatbuffer import Table
from ondevice.program.slim import ProgramFile, parse_graph
from ondevice.program.target import Constant, Inspection

EMBEDDINGS, FIRST_ORDER, WEIGHTS = "embeddings", "first_order", "other_weights"
CATALOG, OVERHEAD = "catalog", "program_overhead"
PTE_PARTS = (EMBEDDINGS, FIRST_ORDER, WEIGHTS, CATALOG, OVERHEAD)

# torch's ScalarType numbers, as the file holds them
ITEM_BYTES = {0: 1, 1: 1, 2: 2, 3: 4, 4: 8, 5: 2, 6: 4, 7: 8, 11: 1, 15: 2, 27: 2, 28: 4, 29: 8}
INTEGERS, CATALOG_TYPES = {0, 1, 2, 3, 4}, {0, 2, 3}  # catalogs are uint8, int16 or int32; tables int8
LOOKUP, QUANTIZED_LOOKUP = "aten::embedding", "quantized_decomposed::embedding_"
ROW_ARITHMETIC = ("aten::minimum", "aten::add")
NOT_WORK = ("executorch_prim::", "aten::sym_size")  # shapes and views, no pass over data


def inspect(data: bytes, name: str = "model.pte", first_order_rows: int | None = None) -> Inspection:
    """Take a .pte file apart: see `ondevice.program.target.Target.inspect`.

    Raises: DamagedFile: when the file is no program.
    """
    try:
        program = ProgramFile.parse(data)
    except ValueError as error:
        raise DamagedFile(f"{name}: {error}") from None
    plans: list[Table] = program.root["execution_plan"]
    constants = _constants(plans, first_order_rows)
    parts = dict.fromkeys(PTE_PARTS, 0)
    for constant in constants:
        parts[constant.part] += constant.num_bytes
    named = {entry.get("segment_index", 0) for entry in program.root.get("named_data", [])}
    parts[WEIGHTS] += sum(len(program.segments[index]) for index in named)
    parts[OVERHEAD] = len(data) - sum(parts[part] for part in PTE_PARTS if part != OVERHEAD)
    inside = sum(
        len(parse_graph(program.segments[delegate["processed"].get("index", 0)])["xnodes"])
        for plan in plans
        for delegate in plan.get("delegates", [])
    )
    outside = sum(not operator.startswith(NOT_WORK) for plan in plans for operator, _ in _calls(plan))
    ops, backends = _requirements(plans)
    return Inspection(
        num_bytes=len(data),
        parts=parts,
        constants=constants,
        methods=[plan["name"] for plan in plans],
        ops=ops,
        backends=backends,
        delegated_fraction=inside / max(1, inside + outside),
    )


def program_requirements(data: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the operators and of the backends that a .pte needs, sorted."""
    return _requirements(ProgramFile.parse(data).root["execution_plan"])


def _requirements(plans: list[Table]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    ops: set[str] = set()
    backends: set[str] = set()
    for plan in plans:
        for op in plan.get("operators", []):
            ops.add(op["name"] + (f".{op['overload']}" if op.get("overload") else ""))
        backends.update(delegate["id"] for delegate in plan.get("delegates", []))
    return tuple(sorted(ops)), tuple(sorted(backends))


def _calls(plan: Table) -> Iterator[tuple[str, list[int]]]:
    """Operator name (without overload) and value indices of every kernel call of a method."""
    operators = plan.get("operators", [])
    for chain in plan["chains"]:
        for instruction in chain["instructions"]:
            call = instruction["instr_args"]
            if call.kind == "KernelCall":
                yield operators[call.get("op_index", 0)]["name"], call["args"]


def _constants(plans: list[Table], first_order_rows: int | None) -> list[Constant]:
    """Every constant once, whatever the number of methods that read it."""
    tensors: dict[int, Table] = {}
    readers: dict[int, set[tuple[str, str, int]]] = {}  # buffer -> (method, operator, place of the argument)
    for plan in plans:
        buffer_of: dict[int, int] = {}
        for index, value in enumerate(plan["values"]):
            tensor = value.get("val")
            if tensor is not None and tensor.kind == "Tensor" and tensor.get("data_buffer_idx", 0):
                buffer_of[index] = tensor["data_buffer_idx"]
                tensors[buffer_of[index]] = tensor
                readers.setdefault(buffer_of[index], set())
        for operator, arguments in _calls(plan):
            for place, index in enumerate(arguments):
                if index in buffer_of:
                    readers[buffer_of[index]].add((plan["name"], operator, place))
    return [
        _constant(tensor, readers[buffer], first_order_rows) for buffer, tensor in sorted(tensors.items())
    ]


def _constant(tensor: Table, readers: set[tuple[str, str, int]], first_order_rows: int | None) -> Constant:
    shape, scalar_type = tuple(tensor.get("sizes", [])), tensor.get("scalar_type", 0)
    num_bytes = math.prod(shape) * ITEM_BYTES[scalar_type]
    return Constant(_part(shape, scalar_type, readers, first_order_rows), num_bytes, shape)


def _part(
    shape: tuple[int, ...],
    scalar_type: int,
    readers: set[tuple[str, str, int]],
    first_order_rows: int | None,
) -> str:
    operators = {operator for _, operator, _ in readers}
    if readers and {method for method, _, _ in readers} == {"recommend"} and scalar_type in CATALOG_TYPES:
        return CATALOG
    if any(operator.startswith(QUANTIZED_LOOKUP) for operator in operators):  # values or per-row scales
        return EMBEDDINGS
    if any(operator == LOOKUP and place == 0 for _, operator, place in readers):
        of_first_order = shape[-1] == 1 and first_order_rows in (None, shape[0] - 1)
        return FIRST_ORDER if of_first_order else EMBEDDINGS
    if scalar_type in INTEGERS:
        return EMBEDDINGS if operators & set(ROW_ARITHMETIC) else OVERHEAD
    return WEIGHTS
