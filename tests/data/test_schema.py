"""Canonical keys, label rules and strict schemas."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data.schema import Field, Label, Schema, log_bucket
from ondevice.data.sets.table import TableSpec
from ondevice.errors import UserError

USER = Field("user", "context", "integer")
CLICKED = Label("clicked")
EXAMPLE = Path(__file__).parents[2] / "train/configs/table_example.schema.yaml"


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (25, 25),
        (25.0, 25),
        ("25", 25),
        (" 25 ", 25),
        ("25.0", 25),
        ("-3", -3),
        ("+3", 3),
        ("007", 7),
        (True, 1),
        (np.int32(4), 4),
        (np.float32(4), 4),
        (2**63 - 1, 2**63 - 1),
        (2**63, None),
        ("2.5", None),
        (2.5, None),
        (math.nan, None),
        (math.inf, None),
        ("1_000", None),
        ("x", None),
        ("", None),
        (None, None),
    ],
)
def test_integer_keys(raw: object, key: int | None) -> None:
    assert USER.key(raw) == key


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ("02138", "02138"),
        (2138, "2138"),
        (2138.0, "2138"),
        (2.5, "2.5"),
        (" a", " a"),
        ("", None),
        (math.nan, None),
        (None, None),
    ],
)
def test_string_keys(raw: object, key: str | None) -> None:
    assert Field("zip", "context", "string").key(raw) == key


@pytest.mark.parametrize(
    # ln 3 = 1.0986, squared 1.21; ln 5 = 1.6094, 2.59; ln 7 = 1.9459, 3.79; ln 8 = 2.0794, 4.32;
    # ln 100 = 4.6052, 21.2; ln 1,000,000 = 13.8155, 190.87
    ("value", "bucket"),
    [(-5, 1), (0, 1), (2, 1), (3, 1), (5, 2), (7, 3), (8, 4), (100, 21), (10**6, 190)],
)
def test_log_bucket_by_hand(value: float, bucket: int) -> None:
    assert log_bucket(value) == bucket
    moved = Field("time", "context", "integer", transform="log_bucket", origin=1000)
    assert moved.key(value + 1000) == bucket
    assert moved.key(str(value + 1000)) == bucket


def test_log_bucket_of_what_is_no_number_is_unknown() -> None:
    field = Field("time", "context", "integer", transform="log_bucket")
    assert [field.key(raw) for raw in (None, "", "soon", math.nan, "1_0")] == [None] * 5


@given(st.floats(-10, 1e12, allow_nan=False), st.sampled_from([0.0, 956703954.0, -0.5]))
def test_bucket_is_inverted(value: float, origin: float) -> None:
    field = Field("time", "context", "integer", transform="log_bucket", origin=origin)
    key = field.key(value + origin)
    assert field.key(field.raw(key)) == key


def test_open_origin_gives_no_key() -> None:
    with pytest.raises(ValueError, match="origin is not known"):
        Field("time", "context", "integer", transform="log_bucket", origin=None).key(5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": "contxt"}, "did you mean 'context'"),
        ({"kind": "int"}, "choose from: history, integer, number, string"),
        ({"transform": "log_bukcet", "kind": "integer"}, "did you mean 'log_bucket'"),
        ({"transform": "log_bucket", "kind": "string"}, "kind: integer"),
        ({"origin": 3}, "origin has no meaning"),
        ({"min_count": 0}, "min_count must be"),
        ({"min_count": 1.5}, "min_count must be"),
        ({"column": 3}, "column must be"),
        ({"name": ""}, "non-empty"),
    ],
)
def test_bad_fields(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(USER, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "raws", "parsed"),
    [
        (CLICKED, ["0", "1", 1.0, True, "false"], [0, 1, 1, 1, 0]),
        (Label("stars", positive_above=3, drop=(3,)), ["1", "3", "3.0", "4", 5], [0, None, None, 1, 1]),
    ],
)
def test_label_rules(label: Label, raws: list[object], parsed: list[int | None]) -> None:
    assert [label.parse(raw) for raw in raws] == parsed


@pytest.mark.parametrize(
    ("label", "raw", "message"),
    [
        (CLICKED, "2", "not 0 or 1"),
        (CLICKED, "", "is missing"),
        (CLICKED, None, "is missing"),
        (CLICKED, "nan", "not a number"),
        (Label("stars", positive_above=3, minimum=1, maximum=5), "6", "outside 1 to 5"),
        (Label("stars", positive_above=3, minimum=1, maximum=5), "0", "outside 1 to 5"),
    ],
)
def test_labels_outside_the_rule(label: Label, raw: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label.parse(raw)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name the column"),
        ({"column": "c", "negatives": 2}, "belong to positive_only"),
        ({"column": "c", "positive_above": "3"}, "must be a number"),
        ({"column": "c", "drop": 3}, "list of numbers"),
        ({"positive_only": True, "negatives": 4}, "needs context_key"),
        ({"positive_only": True, "context_key": "user"}, "negatives of at least 1"),
        ({"positive_only": True, "negatives": 4, "context_key": "user", "column": "c"}, "remove column"),
        (
            {"positive_only": True, "negatives": 1, "context_key": "u", "sampling": "popular"},
            "did you mean 'popularity'",
        ),
    ],
)
def test_bad_labels(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Label(**options)  # type: ignore[arg-type]


def schema() -> Schema:
    fields = (
        USER,
        Field("time", "context", "integer", "ts", transform="log_bucket", origin=12.5),
        Field("item", "item", "string", min_count=3),
    )
    return Schema("mine", fields, Label("stars", positive_above=3, drop=(3,)), "item")


def test_positions_and_names() -> None:
    assert schema().names == ("user", "time", "item")
    assert schema().context_fields == (0, 1)
    assert schema().item_fields == (2,)
    assert [field.source_column for field in schema().fields] == ["user", "ts", "item"]


def test_dict_round_trip() -> None:
    assert Schema.from_dict(schema().to_dict()) == schema()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(itemkey="item"), "unknown key 'itemkey'.*did you mean 'item_key'"),
        (lambda d: d.pop("name"), "'name' is missing"),
        (lambda d: d.pop("label"), "'label' is missing"),
        (lambda d: d["fields"][0].pop("side"), "fields.user.*'side' is missing"),
        (lambda d: d["fields"][0].update(kidn="x"), "did you mean 'kind'"),
        (lambda d: d["fields"].append(d["fields"][0]), "field 'user' is there 2 times"),
        (lambda d: d.update(fields=[]), "at least one field"),
        (lambda d: d.update(fields="user"), "must be a list"),
        (lambda d: d.update(fields=["user"]), "must be a mapping"),
        (lambda d: d.update(item_key="user"), "item_key 'user' is not a field of side item"),
        (lambda d: d.update(item_key="itm"), "did you mean 'item'"),
        (lambda d: d.update(name="a/b"), "name may hold"),
        (lambda d: d["label"].update(positive_abov=1), "did you mean 'positive_above'"),
    ],
)
def test_strict_schemas(change: object, message: str) -> None:
    values = schema().to_dict()
    change(values)  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        Schema.from_dict(values)


def write(folder: Path, text: str) -> Path:
    path = folder / "t.yaml"
    path.write_text(text, encoding="utf-8")
    return path


GOOD = "name: t\nfields: [{name: user, side: context, kind: integer}]\nlabel: {column: clicked}\n"


def test_yaml_schema(tmp_path: Path) -> None:
    assert TableSpec.from_yaml(write(tmp_path, GOOD)).schema == Schema("t", (USER,), CLICKED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "name: u\n", r"t.yaml:4: key 'name' is there twice"),
        (GOOD + "split: {kind: random, kind: temporal}\n", r"t.yaml:4: key 'kind' is there twice"),
        (GOOD + "nme: u\n", "unknown key 'nme'.*did you mean 'name'"),
        (GOOD + "split: {tme: u}\n", "did you mean 'time'"),
        (GOOD + "format: {delimiter: ';;;;;'}\n", "one to four characters"),
        (GOOD + "title: x\n", "set item_key"),
        (GOOD + "split: [a]\n", "must be a mapping"),
        ("- a\n", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("name: [", "not YAML"),
    ],
)
def test_strict_yaml(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TableSpec.from_yaml(write(tmp_path, text))


def test_absent_yaml(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        TableSpec.from_yaml(tmp_path / "none.yaml")


def test_shipped_example() -> None:
    spec = TableSpec.from_yaml(EXAMPLE)
    assert spec.schema.item_key == "book"
    assert spec.split.kind == "temporal"
    assert spec.title == "book_title"
