"""A finished .pte written again in fewer bytes, for the same runtime and with the same results.

What is saved, in the order of size on a typical program of three methods:

- equal flatbuffer parts are stored once (`flatbuffer`);
- XNNPACK graphs are equal in every method whose scoring part is the same, once the compiler's debug handles are
  gone and the batch's upper bound is 1 (the delegate gives XNNPACK the true sizes before each run), and equal
  segments are stored once;
- XNNPACK names each constant by 64 hexadecimal digits of its SHA-256, twice per use. `KEY_LENGTH` letters of the
  same hash in base 64 (42 bits) name it as safely: the name only has to differ from others in one process;
- a method's constants (numbers, flags, lists of them) are one value each, however many calls use it;
- the pytree descriptions of inputs and outputs are only for Python callers of the flattened program;
- segments begin at multiples of 16, what XNNPACK asks for, not of 128.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from ondevice.program.flatbuffer import Schema, Table

ALIGNMENT = 16
KEY_LENGTH = 7
PROGRAM_MAGIC, GRAPH_MAGIC, HEADER_MAGIC, GRAPH_HEADER_MAGIC = b"ET12", b"XN01", b"eh00", b"XH00"
CONSTANTS = ("Null", "Int", "Bool", "Double", "String", "IntList", "BoolList", "DoubleList")
HEADER_BYTES = 32  # of the extended header, which sits between the magic and the flatbuffer's remainder


@cache
def program_schema() -> Schema:
    """Schema of a .pte's flatbuffer, as installed with ExecuTorch."""
    folder = importlib.resources.files("executorch.exir._serialize")
    return Schema([(folder / name).read_text() for name in ("scalar_type.fbs", "program.fbs")])


@cache
def graph_schema() -> Schema:
    """Schema of an XNNPACK delegate's flatbuffer, as installed with ExecuTorch."""
    folder = importlib.resources.files("executorch.backends.xnnpack.serialization")
    return Schema([(folder / "schema.fbs").read_text()])


@dataclass
class ProgramFile:
    """A .pte in parts: the flatbuffer's root table and the segments it refers to by index."""

    root: Table
    segments: list[bytes]

    @classmethod
    def parse(cls, data: bytes) -> ProgramFile:
        """Read a .pte with an extended header.

        Raises: ValueError: when it is none.
        """
        if data[4:8] != PROGRAM_MAGIC or data[8:12] != HEADER_MAGIC:
            raise ValueError(f"not a {PROGRAM_MAGIC.decode()} program with an extended header")
        base = struct.unpack_from("<Q", data, 24)[0]
        root = program_schema().decode(data)
        segments = []
        for entry in root.get("segments", []):
            begin = base + entry.get("offset", 0)
            segments.append(data[begin : begin + entry.get("size", 0)])
        return cls(root, segments)

    def serialize(self) -> bytes:
        """Write the program, each segment at a multiple of `ALIGNMENT`."""
        body = bytearray()
        entries = []
        for segment in self.segments:
            body += bytes(-len(body) % ALIGNMENT)
            entries.append(Table("DataSegment", {"offset": len(body), "size": len(segment)}))
            body += segment
        self.root["segments"] = entries
        flat = program_schema().encode(self.root, PROGRAM_MAGIC)
        program_size = len(flat) + HEADER_BYTES
        base = program_size + -program_size % ALIGNMENT
        root_offset = struct.unpack_from("<I", flat)[0] + HEADER_BYTES
        header = HEADER_MAGIC + struct.pack("<IQQQ", HEADER_BYTES, program_size, base, len(body))
        head = struct.pack("<I", root_offset) + flat[4:8] + header + flat[8:]
        return head + bytes(base - program_size) + bytes(body)


def parse_graph(blob: bytes) -> Table:
    """The graph in an XNNPACK delegate's bytes.

    Raises: ValueError: when they are something else, or hold constants of their own.
    """
    if blob[4:8] != GRAPH_HEADER_MAGIC:
        raise ValueError("not an XNNPACK delegate with a header")
    offset, _, _, constant_bytes = struct.unpack_from("<IIIQ", blob, 10)
    if constant_bytes:
        raise ValueError("an XNNPACK delegate with constants inside; they belong into named data")
    return graph_schema().decode(blob, offset)


def serialize_graph(graph: Table) -> bytes:
    """The bytes of an XNNPACK delegate."""
    flat = graph_schema().encode(graph, GRAPH_MAGIC)
    header = bytes(4) + GRAPH_HEADER_MAGIC + struct.pack("<HIIIQ", 30, 32, len(flat), 32 + len(flat), 0)
    return header + bytes(2) + flat


def short_key(key: str) -> str:
    """The name of a constant, from the name that XNNPACK's compiler gave it."""
    return base64.b64encode(hashlib.sha256(key.encode()).digest()).decode()[:KEY_LENGTH]


def slim(data: bytes, batches: Mapping[str, int]) -> bytes:
    """The same program in fewer bytes: see the module.

    Args:
        data: a .pte as ExecuTorch wrote it.
        batches: the most rows of each method at once, the leading size of what depends on the batch.
    """
    program = ProgramFile.parse(data)
    keys = {short_key(entry["key"]) for entry in program.root.get("named_data", [])}
    assert len(keys) == len(program.root.get("named_data", [])), "two constants with one short name"
    for entry in program.root.get("named_data", []):
        entry["key"] = short_key(entry["key"])
    delegates = []
    for plan in program.root["execution_plan"]:
        merge_values(plan)
        plan["container_meta_type"] = Table(
            "ContainerMetadata", {"encoded_inp_str": "", "encoded_out_str": ""}
        )
        for delegate in plan.get("delegates", []):
            blob = program.segments[delegate["processed"].get("index", 0)]
            delegate["processed"]["index"] = len(program.segments)
            program.segments.append(_slim_graph(blob, batches[plan["name"]]))
            delegates.append(delegate)
    _merge_segments(program, delegates)
    return program.serialize()


def merge_values(plan: Table) -> None:
    """Keep one of each equal constant value of a method, and renumber what refers to it.

    Values that a call may write stay apart: tensors, and the numbers that operators on sizes return.
    """
    calls = [i["instr_args"] for chain in plan["chains"] for i in chain.get("instructions", [])]
    if any(call.kind not in ("KernelCall", "DelegateCall") for call in calls):
        return
    names = [op["name"] for op in plan.get("operators", [])]
    kept_apart = {*plan.get("inputs", []), *plan.get("outputs", [])}
    for call in calls:
        name = names[call.get("op_index", 0)] if call.kind == "KernelCall" else ""
        if name.startswith(("executorch_prim::", "aten::sym_")):
            kept_apart.update(call["args"])
    renumbered: list[int] = []
    values: list[Table] = []
    seen: dict[object, int] = {}
    lists = []
    for place, value in enumerate(plan["values"]):
        content = value.get("val")
        key: object = place
        if content is not None and place not in kept_apart and content.kind in CONSTANTS:
            items = content.get("items")
            if items is not None:  # places of values that come before
                items = tuple(renumbered[i] for i in items) if content.kind == "IntList" else tuple(items)
            key = (content.kind, items, *((k, v) for k, v in content.fields.items() if k != "items"))
        if key not in seen:
            seen[key] = len(values)
            values.append(value)
            if content is not None and content.kind in ("IntList", "TensorList", "OptionalTensorList"):
                lists.append(content)
        renumbered.append(seen[key])
    for content in lists:
        content["items"] = [renumbered[i] if i >= 0 else i for i in content.get("items", [])]
    for call in calls:
        call["args"] = [renumbered[i] for i in call["args"]]
    plan["inputs"] = [renumbered[i] for i in plan.get("inputs", [])]
    plan["outputs"] = [renumbered[i] for i in plan.get("outputs", [])]
    plan["values"] = values


def _slim_graph(blob: bytes, batch: int) -> bytes:
    graph = parse_graph(blob)
    for value in graph["xvalues"]:
        tensor = value["xvalue_union"]
        tensor = tensor.get("tensor_value", tensor)
        dims = tensor.get("dims", [])
        if tensor.get("constant_buffer_idx") or not dims:
            continue
        # heads of attention multiply the batch; a vector of another length is no batch
        if dims[0] == batch or (len(dims) > 1 and dims[0] % batch == 0):
            dims[0] //= batch
    for node in graph["xnodes"]:
        node.fields.pop("debug_handle", None)
    for constant in graph["constant_data"]:
        if constant.get("named_key"):
            constant["named_key"] = short_key(constant["named_key"])
    return serialize_graph(graph)


def _merge_segments(program: ProgramFile, delegates: list[Table]) -> None:
    """Store equal segments once and drop what nothing refers to."""
    root = program.root
    holders = [(d["processed"], "index") for d in delegates]
    holders += [(entry, "segment_index") for entry in root.get("named_data", [])]
    holders += [(entry, "segment_index") for entry in root.get("mutable_data_segments", [])]
    if root.get("constant_segment") is not None and root["constant_segment"].get("offsets"):
        holders.append((root["constant_segment"], "segment_index"))
    merged: dict[bytes, int] = {}
    for holder, name in holders:
        content = program.segments[holder.get(name, 0)]
        holder[name] = merged.setdefault(content, len(merged))
    program.segments = list(merged)
