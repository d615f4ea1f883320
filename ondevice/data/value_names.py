"""What a person reads for the coded values of a known data set, where the app shows a list of them."""

from __future__ import annotations

from ondevice.data.schema import Schema

_GENDER = {"F": "female", "M": "male"}
_AGE = {
    **{"1": "under 18", "18": "18 to 24", "25": "25 to 34", "35": "35 to 44", "45": "45 to 49"},
    **{"50": "50 to 55", "56": "56 and over"},
}
_OCCUPATION = (  # by its number in users.dat
    *("other or not specified", "academic or educator", "artist", "clerical or administrative"),
    *("college or graduate student", "customer service", "doctor or health care", "executive or managerial"),
    *("farmer", "homemaker", "school student", "lawyer", "programmer", "retired", "sales or marketing"),
    *(
        "scientist",
        "self-employed",
        "technician or engineer",
        "tradesman or craftsman",
        "unemployed",
        "writer",
    ),
)
VALUE_NAMES: dict[str, dict[str, dict[str, str]]] = {
    "movielens_1m": {
        "gender": _GENDER,
        "age": _AGE,
        "occupation": {str(code): name for code, name in enumerate(_OCCUPATION)},
    },
    "movielens_100k": {"gender": _GENDER, "age": _AGE},
}
"""By data set, field and key."""


def value_names(schema: Schema) -> dict[str, dict[str, str]]:
    """Names of values by field and key, of the fields that the schema has; nothing for other data sets."""
    return {
        field: names for field, names in VALUE_NAMES.get(schema.name, {}).items() if field in schema.names
    }
