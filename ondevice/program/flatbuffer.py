"""FlatBuffers read and written by their schema text, with equal parts stored once.

ExecuTorch's own writer stores every table, vector and string as often as it occurs. A program of a few
kilobytes is mostly repetitions: the same small integers, shapes and names in each of its methods. An offset may
point to a part that others point to as well, and readers neither notice nor care.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

SCALARS = {
    **dict.fromkeys(("bool", "ubyte", "uint8"), "B"),
    **dict.fromkeys(("byte", "int8"), "b"),
    **dict.fromkeys(("short", "int16"), "h"),
    **dict.fromkeys(("ushort", "uint16"), "H"),
    **dict.fromkeys(("int", "int32"), "i"),
    **dict.fromkeys(("uint", "uint32"), "I"),
    **dict.fromkeys(("long", "int64"), "q"),
    **dict.fromkeys(("ulong", "uint64"), "Q"),
    **dict.fromkeys(("float", "float32"), "f"),
    **dict.fromkeys(("double", "float64"), "d"),
}
MAX_DEPTH = 64

_COMMENT = re.compile(r"//[^\n]*")
_BLOCK = re.compile(r"\b(table|enum|union)\s+(\w+)\s*(?::\s*(\w+)\s*)?\{([^}]*)\}")
_FIELD = re.compile(r"(\w+)\s*:\s*(\[?)\s*(\w+)\s*\]?\s*(?:=\s*(\w+)\s*)?(?:\(([^)]*)\))?\s*$")
_ALIGN = re.compile(r"force_align\s*:\s*(\d+)")


@dataclass
class Table:
    """One table: the name of its type, and its fields that are present.

    A union ``u`` has two fields: ``u``, a table, and ``u_type``, its place among the union's members.
    """

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.fields[name] = value

    def get(self, name: str, default: Any = None) -> Any:
        """A field's value, or ``default`` where it is absent."""
        return self.fields.get(name, default)


@dataclass(frozen=True)
class _Field:
    name: str
    slot: int
    kind: str  # a scalar's format letter, "string", "table", "union", or "vector"
    of: str = ""  # type of a table, union or vector's elements
    default: int | float = 0
    alignment: int = 1


class Schema:
    """The tables, enums and unions of a .fbs text.

    Args:
        texts: the schema and what it includes.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        blocks = [b for text in texts for b in _BLOCK.findall(_COMMENT.sub("", text))]
        self.root = next(
            m[1] for text in texts for m in [re.search(r"\broot_type\s+(\w+)", _COMMENT.sub("", text))] if m
        )
        self._enums: dict[str, tuple[str, dict[str, int]]] = {}
        self._unions: dict[str, list[str]] = {}
        self.tables: dict[str, list[_Field]] = {}
        for sort, name, base, body in blocks:
            entries = [entry.strip() for entry in body.split(",") if entry.strip()]
            if sort == "enum":
                self._enums[name] = (SCALARS[base], _enum_values(entries))
            elif sort == "union":
                self._unions[name] = [entry.split(":")[-1].strip() for entry in entries]
        for sort, name, _, body in blocks:
            if sort == "table":
                self.tables[name] = self._fields(body)

    def _fields(self, body: str) -> list[_Field]:
        fields: list[_Field] = []
        slot = 0
        for entry in (e.strip() for e in body.split(";")):
            if not entry:
                continue
            match = _FIELD.match(entry)
            if match is None:
                raise ValueError(f"schema field not understood: {entry!r}")
            name, is_vector, of, default, attributes = match.groups()
            align = _ALIGN.search(attributes or "")
            alignment = int(align[1]) if align else 1
            if is_vector:
                fields.append(_Field(name, slot, "vector", of, alignment=alignment))
            elif of in self._unions:
                fields.append(_Field(f"{name}_type", slot, "B"))
                slot += 1
                fields.append(_Field(name, slot, "union", of))
            elif of in SCALARS:
                fields.append(_Field(name, slot, SCALARS[of], default=float(default or 0)))
            elif of in self._enums:
                letter, values = self._enums[of]
                fields.append(_Field(name, slot, letter, default=values.get(default, 0) if default else 0))
            else:
                fields.append(_Field(name, slot, "string" if of == "string" else "table", of))
            slot += 1
        return fields

    def member(self, union: str, place: int) -> str:
        """Type of the table at a place (from 1) of a union."""
        return self._unions[union][place - 1]

    def letter(self, kind: str) -> str | None:
        """Format letter of a scalar or enum type; None for tables and strings."""
        return self._enums[kind][0] if kind in self._enums else SCALARS.get(kind)

    def decode(self, data: bytes, start: int = 0) -> Table:
        """The root table of a buffer that begins at ``start``.

        Raises: ValueError: when an offset leads outside the buffer.
        """
        try:
            return self._read(data, self.root, start + struct.unpack_from("<I", data, start)[0], 0)
        except (struct.error, IndexError) as error:
            raise ValueError(f"not a whole flatbuffer of {self.root}: {error}") from None

    def _read(self, data: bytes, kind: str, position: int, depth: int) -> Table:
        if depth > MAX_DEPTH:
            raise ValueError(f"a flatbuffer nested more than {MAX_DEPTH} deep")
        vtable = position - struct.unpack_from("<i", data, position)[0]
        size = struct.unpack_from("<H", data, vtable)[0]
        table = Table(kind)
        for each in self.tables[kind]:
            entry = 4 + 2 * each.slot
            offset = struct.unpack_from("<H", data, vtable + entry)[0] if entry < size else 0
            if offset == 0:
                continue
            at = position + offset
            if len(each.kind) == 1:
                table[each.name] = struct.unpack_from(f"<{each.kind}", data, at)[0]
                continue
            target = at + struct.unpack_from("<I", data, at)[0]
            if each.kind == "union":
                member = self.member(each.of, table[f"{each.name}_type"])
                table[each.name] = self._read(data, member, target, depth + 1)
            elif each.kind == "table":
                table[each.name] = self._read(data, each.of, target, depth + 1)
            else:
                table[each.name] = self._read_vector(data, each, target, depth)
        return table

    def _read_vector(self, data: bytes, each: _Field, at: int, depth: int) -> Any:
        count = struct.unpack_from("<I", data, at)[0]
        at += 4
        if at + count > len(data):
            raise ValueError(f"{each.name}: {count} elements do not fit the buffer")
        letter = self.letter(each.of)
        if each.kind == "string":
            return data[at : at + count].decode()
        if letter == "B":
            return data[at : at + count]
        if letter is not None:
            return list(struct.unpack_from(f"<{count}{letter}", data, at))
        targets = [at + 4 * i + struct.unpack_from("<I", data, at + 4 * i)[0] for i in range(count)]
        if each.of == "string":
            element = _Field(each.name, 0, "string", "string")
            return [self._read_vector(data, element, target, depth) for target in targets]
        return [self._read(data, each.of, target, depth + 1) for target in targets]

    def encode(self, root: Table, identifier: bytes) -> bytes:
        """The shortest buffer this writer knows: equal parts once, no padding that alignment does not need."""
        return _Writer(self).write(root, identifier)


def _enum_values(entries: list[str]) -> dict[str, int]:
    values: dict[str, int] = {}
    upcoming = 0
    for entry in entries:
        name, _, value = (part.strip() for part in entry.partition("="))
        upcoming = int(value) if value else upcoming
        values[name] = upcoming
        upcoming += 1
    return values


@dataclass(frozen=True)
class _Part:
    """Bytes at an aligned place, holes in which are filled with offsets to other parts."""

    content: bytes
    references: tuple[tuple[int, int], ...]  # (place in content, part)
    alignment: int
    shift: int = 0  # content begins this many bytes before an aligned place
    vtable: int = -1


class _Writer:
    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.parts: list[_Part] = []
        self.numbers: dict[_Part, int] = {}
        self.vtables: dict[bytes, int] = {}

    def write(self, root: Table, identifier: bytes) -> bytes:
        last = self._table(root, 0)
        out = bytearray(8)
        out[4:8] = identifier
        vtable_at = {}
        for content, number in self.vtables.items():
            vtable_at[number] = len(out)
            out += content
        places = self._lay_out(out, last)
        for place, part in zip(places, self.parts, strict=True):
            if part.vtable >= 0:
                struct.pack_into("<i", out, place, place - vtable_at[part.vtable])
            for hole, child in part.references:
                struct.pack_into("<I", out, place + hole, places[child] - place - hole)
        struct.pack_into("<I", out, 0, places[last])
        return bytes(out)

    def _lay_out(self, out: bytearray, root: int) -> list[int]:
        """Append every part after all that refer to it (offsets point forward), with little padding between."""
        waiting = [0] * len(self.parts)
        for part in self.parts:
            for _, child in part.references:
                waiting[child] += 1
        places = [0] * len(self.parts)
        ready = [root]
        while ready:
            number = min(ready, key=lambda n: (self._padding(n, len(out)), -n))
            ready.remove(number)
            part = self.parts[number]
            out += bytes(self._padding(number, len(out)))
            places[number] = len(out)
            out += part.content
            for _, child in part.references:
                waiting[child] -= 1
                if waiting[child] == 0:
                    ready.append(child)
        return places

    def _padding(self, number: int, at: int) -> int:
        part = self.parts[number]
        return -(at + part.shift) % part.alignment

    def _intern(self, part: _Part) -> int:
        number = self.numbers.get(part)
        if number is None:
            number = self.numbers[part] = len(self.parts)
            self.parts.append(part)
        return number

    def _table(self, table: Table, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise ValueError(f"a table nested more than {MAX_DEPTH} deep")
        values: list[tuple[int, int, bytes | int]] = []  # (size, slot, bytes or part)
        for each in self.schema.tables[table.kind]:
            value = table.get(each.name)
            if value is None:
                continue
            if len(each.kind) == 1:
                if value != each.default:
                    content = struct.pack(f"<{each.kind}", value)
                    values.append((len(content), each.slot, content))
            elif each.kind in ("table", "union"):
                values.append((4, each.slot, self._table(value, depth + 1)))
            else:
                values.append((4, each.slot, self._vector(each, value, depth)))
        values.sort(key=lambda v: (-v[0], v[1]))
        inline = bytearray(4)
        references = []
        slots = [0] * (max((slot for _, slot, _ in values), default=-1) + 1)
        for _, slot, value in values:
            slots[slot] = len(inline)
            if isinstance(value, int):
                references.append((len(inline), value))
                inline += bytes(4)
            else:
                inline += value
        vtable = struct.pack(f"<{2 + len(slots)}H", 4 + 2 * len(slots), len(inline), *slots)
        number = self.vtables.setdefault(vtable, len(self.vtables))
        wide = bool(values) and values[0][0] == 8
        # The 4 bytes before the fields are put just before a multiple of 8.
        return self._intern(
            _Part(bytes(inline), tuple(references), 8 if wide else 4, 4 if wide else 0, number)
        )

    def _vector(self, each: _Field, value: Any, depth: int) -> int:
        if each.kind == "string":
            text = value.encode()
            return self._intern(_Part(struct.pack("<I", len(text)) + text + b"\0", (), 4))
        letter = self.schema.letter(each.of)
        count = struct.pack("<I", len(value))
        if letter is not None:
            content = bytes(value) if letter == "B" else struct.pack(f"<{len(value)}{letter}", *value)
            alignment = max(4, struct.calcsize(letter), each.alignment)
            return self._intern(_Part(count + content, (), alignment, 4))
        if each.of == "string":
            element = _Field(each.name, 0, "string", "string")
            children = [self._vector(element, item, depth) for item in value]
        else:
            children = [self._table(item, depth + 1) for item in value]
        references = tuple((4 + 4 * i, child) for i, child in enumerate(children))
        return self._intern(_Part(count + bytes(4 * len(children)), references, 4))
