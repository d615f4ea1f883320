"""catalog.bin: titles and raw values of the items, in columns.

Version 1, varint = unsigned LEB128::

    "ODC1"
    varint size                the raw deflate (RFC 1951) follows of `size` bytes:
      varint num_items         item i is the i-th known key, in the order of rows, of the field that names an item
      varint num_columns
      per column:
        varint length, name    UTF-8: "title", or an item field
        u8 form                1: texts; 2: values
        texts:   num_items varints, bytes of each text; then the texts, UTF-8
        values:  varint num_values; num_values varints, bytes of each value; then the values, JSON scalars or lists
                               of them, in UTF-8; num_items varints, which value each item has

An item without a title has an empty one. The field that names an item has no column where its raw values are the keys
themselves. Of the two forms a column takes the one with fewer bytes, deflated.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from ondevice.bundle.json_object import parse
from ondevice.bundle.manifest import dump
from ondevice.bundle.subset import Reader, varint
from ondevice.errors import UserError

MAGIC = b"ODC1"
TITLE = "title"
TEXTS, VALUES = 1, 2
MAX_INFLATED = 256 << 20  # bytes; a file that says more is not unpacked

Column = list[Any]


def encode(items: Sequence[Mapping[str, Any]], keys: Sequence[int | str], item_key: str) -> bytes:
    """The file of some items.

    Args:
        items: title and raw values by field name of each.
        keys: the known keys of the field that names an item, in the order of rows; one for each item.
        item_key: the name of that field.
    """
    assert len(items) == len(keys), "an item for each known key"
    names = list(dict.fromkeys(name for item in items for name in item))
    content = bytearray(varint(len(items)))
    columns = []
    for name in names:
        column = [item.get(name) for item in items]
        if name == item_key and column == list(keys):
            continue
        if name == TITLE:
            column = ["" if title is None else title for title in column]
        columns.append(_text(name) + _encode_column(column))
    content += varint(len(columns)) + b"".join(columns)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return MAGIC + varint(len(content)) + deflate.compress(bytes(content)) + deflate.flush()


def _text(text: str) -> bytes:
    data = text.encode()
    return varint(len(data)) + data


def _texts(texts: Sequence[str]) -> bytes:
    data = [text.encode() for text in texts]
    return b"".join(varint(len(each)) for each in data) + b"".join(data)


def _encode_column(column: Column) -> bytes:
    scalars = [dump(value) for value in column]
    values = list(dict.fromkeys(scalars))
    place_of = {value: place for place, value in enumerate(values)}
    places = b"".join(varint(place_of[scalar]) for scalar in scalars)
    forms = [bytes([VALUES]) + varint(len(values)) + _texts(values) + places]
    if all(isinstance(value, str) for value in column):
        forms.append(bytes([TEXTS]) + _texts(column))
    return min(forms, key=lambda form: len(zlib.compress(form, 9)))


def decode(
    data: bytes, keys: Sequence[int | str], item_key: str, name: str = "catalog.bin"
) -> list[dict[str, Any]]:
    """Read what `encode` wrote: title, where there is one, and raw values of each item.

    Raises: UserError: when the content is not a whole catalog of these keys.
    """
    reader = Reader(data, name)
    if reader.take(min(4, len(data))) != MAGIC:
        raise reader.wrong(f"does not begin with {MAGIC.decode()}")
    reader = Reader(reader.inflated(MAX_INFLATED), name)
    num_items = reader.varint("number of items")
    if num_items != len(keys):
        raise reader.wrong(f"{num_items} items, where the model knows {len(keys)}")
    items: list[dict[str, Any]] = [{} for _ in range(num_items)]
    for item, key in zip(items, keys, strict=True):
        item[item_key] = key
    seen = set()
    for _ in range(reader.varint("number of columns")):
        column_name = _read_texts(reader, [reader.varint("size of a name")])[0]
        if column_name in seen:
            raise reader.wrong(f"column '{column_name}' is there twice")
        seen.add(column_name)
        for item, value in zip(items, _decode_column(reader, num_items), strict=True):
            if column_name != TITLE or value != "":
                item[column_name] = value
    if reader.left:
        raise reader.wrong(f"{reader.left} bytes follow the last column")
    return items


def _read_texts(reader: Reader, sizes: Sequence[int]) -> list[str]:
    try:
        return [reader.take(size).decode() for size in sizes]
    except UnicodeDecodeError:
        raise reader.wrong("a text is not UTF-8") from None


def _decode_column(reader: Reader, num_items: int) -> Column:
    form = reader.byte()
    if form not in (TEXTS, VALUES):
        raise reader.wrong(f"no form {form} of a column")
    count = num_items if form == TEXTS else reader.varint("number of values")
    if count > reader.left:
        raise reader.wrong(f"{count} texts in {reader.left} bytes")
    texts = _read_texts(reader, [reader.varint("size of a text") for _ in range(count)])
    if form == TEXTS:
        return list(texts)
    values = [_value(text, reader) for text in texts]
    places = [reader.varint("value of an item") for _ in range(num_items)]
    if any(place >= count for place in places):
        raise reader.wrong(f"an item has a value beyond the {count} of its column")
    return [values[place] for place in places]


def _value(text: str, reader: Reader) -> Any:
    try:
        value = parse(text.encode())
    except ValueError:
        value = {}
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, (dict, list)) for part in parts):
        raise reader.wrong(f"{text!r} is no JSON scalar and no list of them")
    return value


def check_order(
    items: Sequence[Mapping[str, Any]], keys: Sequence[int | str | None], known: Sequence[Any]
) -> None:
    """Refuse items that are not the known keys, in the order of rows.

    Raises: UserError: naming the first item that is another.
    """
    if len(items) != len(known):
        raise UserError(f"catalog: {len(items)} items, where the vocabulary knows {len(known)} keys")
    for item, key, expected in zip(items, keys, known, strict=True):
        if key != expected:
            raise UserError(f"catalog: {dict(item)} stands where the item {expected!r} belongs; sort by rows")
