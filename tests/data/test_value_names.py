"""Names of coded values."""

from __future__ import annotations

from ondevice.data.schema import Field, Label, Schema
from ondevice.data.value_names import value_names


def test_codes_of_movielens_have_their_names() -> None:
    fields = (Field("occupation", "context", "integer"), Field("zip", "context", "string"))
    label = Label("rating", positive_above=3)
    names = value_names(Schema("movielens_1m", fields, label))
    assert list(names) == ["occupation"]
    assert len(names["occupation"]) == 21
    assert (names["occupation"]["0"], names["occupation"]["20"]) == ("other or not specified", "writer")
    assert names["occupation"]["12"] == "programmer"
    assert value_names(Schema("shop", fields, label)) == {}
