"""A program written again: fewer bytes, the same results, and nothing stored twice."""

from __future__ import annotations

import numpy as np
import pytest
from torch.export import export as torch_export

from ondevice.data import Dataset
from ondevice.program.endpoints import make_endpoints
from ondevice.program.export import Exported
from ondevice.program.flatbuffer import Table
from ondevice.program.pack import pack
from ondevice.program.quantize import quantize
from ondevice.program.runtime import LoadedProgram
from ondevice.program.slim import ProgramFile, merge_values, parse_graph, short_key, slim
from ondevice.quiet import quiet

from . import shop


@pytest.fixture(scope="module")
def plain(data: Dataset) -> bytes:
    """Two methods as ExecuTorch writes them, the item's fields among the context's."""
    packed = quantize(pack(shop.recommender("fm", "staircase", data)))
    methods = make_endpoints(
        packed, ("forward", "rank"), context_columns=(1, 2, 4), item_columns=(0, 3), max_batch=64
    )
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

        programs = {
            name: torch_export(m.module, m.example, dynamic_shapes=m.dynamic_shapes)
            for name, m in methods.items()
        }
        edge = to_edge_transform_and_lower(
            programs,
            partitioner=[XnnpackPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        result: bytes = edge.to_executorch().buffer
    return result


def test_results_are_the_same_in_fewer_bytes(plain: bytes, data: Dataset) -> None:
    small = slim(plain, {"forward": 64, "rank": 64})
    assert len(small) < 0.75 * len(plain)
    rows = np.asarray(data.test.ids[:50], dtype=np.int64) % 100
    before, after = LoadedProgram(plain), LoadedProgram(small)
    assert np.array_equal(before("forward", rows)[0], after("forward", rows)[0])
    for count in (1, 7, 50):
        inputs = rows[:1, [1, 2, 4]], rows[:count, [0, 3]]
        assert np.array_equal(before("rank", *inputs)[0], after("rank", *inputs)[0])
    whole = rows.copy()
    whole[:, [1, 2, 4]] = rows[0, [1, 2, 4]]
    np.testing.assert_allclose(after("rank", *inputs)[0], after("forward", whole)[0], atol=1e-6)


def test_a_segment_is_written_once(plain: bytes, exported: Exported) -> None:
    program = ProgramFile.parse(exported.bundle.contents["model.pte"])
    assert len(set(program.segments)) == len(program.segments)
    used = {plan["delegates"][0]["processed"].get("index", 0) for plan in program.root["execution_plan"]}
    assert len(used) == 1  # three methods, one scoring part
    assert all(len(plan["delegates"]) == 1 for plan in program.root["execution_plan"])
    again = ProgramFile.parse(program.serialize())
    assert again.segments == program.segments


def test_names_of_constants_are_short_and_agree(exported: Exported) -> None:
    program = ProgramFile.parse(exported.bundle.contents["model.pte"])
    names = {entry["key"] for entry in program.root["named_data"]}
    index = program.root["execution_plan"][0]["delegates"][0]["processed"].get("index", 0)
    graph = parse_graph(program.segments[index])
    assert {c["named_key"] for c in graph["constant_data"] if c.get("named_key")} == names
    assert all(len(name) == 7 for name in names)
    assert short_key("a") != short_key("b")
    assert not any(node.get("debug_handle") for node in graph["xnodes"])


def test_what_is_no_program_is_refused() -> None:
    with pytest.raises(ValueError, match="not a ET12 program"):
        ProgramFile.parse(b"\0" * 64)
    with pytest.raises(ValueError, match="not an XNNPACK delegate"):
        parse_graph(b"\0" * 64)


def plan(values: list[Table], calls: list[tuple[int, list[int]]], outputs: list[int]) -> Table:
    instructions = [
        Table("Instruction", {"instr_args": Table("KernelCall", {"op_index": op, "args": args})})
        for op, args in calls
    ]
    return Table(
        "ExecutionPlan",
        {
            "values": [Table("EValue", {"val": value}) for value in values],
            "operators": [Table("Operator", {"name": n}) for n in ("aten::add", "aten::sym_size")],
            "chains": [Table("Chain", {"instructions": instructions})],
            "inputs": [0],
            "outputs": outputs,
        },
    )


def test_equal_constants_of_a_method_are_merged_and_written_ones_are_not() -> None:
    def number(n: int) -> Table:
        return Table("Int", {"int_val": n})

    tensor = Table("Tensor", {"sizes": [2]})
    values = [
        tensor,
        number(1),
        number(1),  # the same as 1
        number(0),  # sym_size writes here
        number(0),
        Table("IntList", {"items": [2, 4]}),
        Table("IntList", {"items": [1, 4]}),  # the same, once 2 is 1
        Table("Tensor", {"sizes": [2]}),
    ]
    made = plan(values, [(1, [0, 4, 3]), (0, [0, 2, 5, 7]), (0, [0, 1, 6, 7])], [7])
    merge_values(made)
    calls = [i["instr_args"]["args"] for i in made["chains"][0]["instructions"]]
    assert len(made["values"]) == 6
    assert calls[1] == calls[2] == [0, 1, 4, 5]
    assert calls[0] == [0, 3, 2]
    assert made["outputs"] == [5]
    assert made["values"][4]["val"]["items"] == [1, 3]


def test_programs_that_jump_are_left_alone() -> None:
    made = plan([Table("Int", {"int_val": 1}), Table("Int", {"int_val": 1})], [(0, [0, 1])], [1])
    made["chains"][0]["instructions"].append(
        Table("Instruction", {"instr_args": Table("JumpFalseCall", {"cond_value_index": 1})})
    )
    merge_values(made)
    assert len(made["values"]) == 2
