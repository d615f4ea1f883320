"""The flatbuffer writer against flatc's own reading, and what it shares."""

from __future__ import annotations

import json
import struct
import subprocess
from importlib.abc import Traversable
from importlib.resources import files
from pathlib import Path

import pytest

from ondevice.program.export import Exported
from ondevice.program.flatbuffer import Schema, Table
from ondevice.program.slim import ProgramFile, graph_schema, parse_graph, program_schema

SCHEMA = """
namespace test;  // a comment with { braces }
enum Kind : byte { A, B = 3, C }
table Leaf { name: string; number: long = 7; }
union Choice { Leaf, Other: Leaf }
table Root {
  kind: Kind = B;
  choice: Choice;
  leaves: [Leaf];
  numbers: [ulong];
  raw: [ubyte] (force_align: 16);
  names: [string];
  flag: bool;
}
root_type Root;
"""


def test_a_table_of_everything_is_read_back() -> None:
    schema = Schema([SCHEMA])
    leaf = Table("Leaf", {"name": "ü", "number": -(2**60)})
    root = Table(
        "Root",
        {
            "kind": 4,
            "choice_type": 2,
            "choice": leaf,
            "leaves": [leaf, Table("Leaf", {"name": "ü"}), leaf],
            "numbers": [1, 2**64 - 1],
            "raw": b"\1\2\3",
            "names": ["a", "", "a"],
            "flag": 1,
        },
    )
    data = schema.encode(root, b"TEST")
    assert data[4:8] == b"TEST"
    assert schema.decode(data) == root
    assert data.index(b"\1\2\3") % 16 == 0
    assert data.count("ü".encode()) == 1  # told three times, stored once


def test_values_that_are_defaults_take_no_room() -> None:
    schema = Schema([SCHEMA])
    data = schema.encode(Table("Root", {"kind": 3, "flag": 0}), b"TEST")
    assert schema.decode(data) == Table("Root", {})
    assert len(data) == 8 + 4 + 4  # offset and identifier, an empty vtable, an empty table


def test_equal_parts_are_stored_once() -> None:
    schema = Schema([SCHEMA])

    def size(count: int) -> int:
        leaves = [Table("Leaf", {"name": "the same name", "number": 5}) for _ in range(count)]
        return len(schema.encode(Table("Root", {"leaves": leaves}), b"TEST"))

    assert size(100) - size(99) == 4 or size(101) - size(99) == 8


def test_a_damaged_buffer_is_a_value_error() -> None:
    schema = Schema([SCHEMA])
    data = schema.encode(Table("Root", {"names": ["abc"] * 3, "numbers": [5] * 9}), b"TEST")
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"flatbuffer|elements do not fit"):
            schema.decode(data[:length])
    with pytest.raises(ValueError, match="schema field not understood"):
        Schema(["table T { what is this; } root_type T;"])


def flatc_json(folder: Path, schema: str, includes: list[Traversable], data: bytes) -> object:
    """What the reference implementation reads in a buffer."""
    flatc = files("executorch") / "data" / "bin" / "flatc"
    (folder / "data.bin").write_bytes(data)
    for include in includes:
        (folder / include.name).write_text(include.read_text())
    subprocess.run(
        [str(flatc), "--json", "--strict-json", "--raw-binary", "-o", str(folder), schema, "--", "data.bin"],
        check=True,
        cwd=folder,
        capture_output=True,
    )
    text = (folder / "data.json").read_text()
    return json.loads(text.replace(": inf", ": 1e999"))  # flatc's own word for it is not JSON


def test_flatc_reads_a_program_written_here_as_what_went_in(exported: Exported, tmp_path: Path) -> None:
    program = ProgramFile.parse(exported.bundle.contents["model.pte"])
    folder = files("executorch.exir._serialize")
    data = program_schema().encode(program.root, b"ET12")
    read = flatc_json(tmp_path, "program.fbs", [folder / "program.fbs", folder / "scalar_type.fbs"], data)
    assert isinstance(read, dict)
    assert [plan["name"] for plan in read["execution_plan"]] == ["forward", "rank", "recommend"]
    plan, written = read["execution_plan"][0], program.root["execution_plan"][0]
    assert [op["name"] for op in plan["operators"]] == [op["name"] for op in written["operators"]]
    assert len(plan["values"]) == len(written["values"])
    for value, mine in zip(plan["values"], written["values"], strict=True):
        assert value["val_type"] == mine["val"].kind
        if value["val_type"] == "Tensor":
            assert value["val"]["sizes"] == mine["val"]["sizes"]
    calls = [i["instr_args"]["args"] for i in plan["chains"][0]["instructions"]]
    assert calls == [i["instr_args"]["args"] for i in written["chains"][0]["instructions"]]
    assert [s.get("size", 0) for s in read["segments"]] == [len(s) for s in program.segments]


def test_flatc_reads_a_delegate_written_here(exported: Exported, tmp_path: Path) -> None:
    program = ProgramFile.parse(exported.bundle.contents["model.pte"])
    index = program.root["execution_plan"][0]["delegates"][0]["processed"].get("index", 0)
    blob = program.segments[index]
    graph = parse_graph(blob)
    schema = files("executorch.backends.xnnpack.serialization") / "schema.fbs"
    offset = struct.unpack_from("<I", blob, 10)[0]
    read = flatc_json(tmp_path, "schema.fbs", [schema], blob[offset:])
    assert isinstance(read, dict)
    assert len(read["xnodes"]) == len(graph["xnodes"])
    keys = [c.get("named_key", "") for c in read["constant_data"]]
    assert keys == [c.get("named_key", "") for c in graph["constant_data"]]
    assert graph_schema().encode(graph, b"XN01") == blob[offset:]
