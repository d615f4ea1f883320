"""What a method selected for each table, saved and read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ondevice.forms import FORMS
from ondevice.methods.base import Selection
from ondevice.methods.ranking import Ranking


def described(selection: Selection) -> dict[str, Any]:
    """What `read_selection` needs beside tensors, for JSON."""
    return {"kind": selection.kind(), **selection.facts()}


def read_selection(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Selection:
    """A form, or a ranking, of what `described` and ``tensors()`` gave."""
    kind = description["kind"]
    if kind == Ranking.kind():
        return Ranking.of_tensors(tensors, description)
    return FORMS[kind].of_tensors(tensors, description)


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix/``, without it."""
    return {
        name.removeprefix(f"{prefix}/"): value
        for name, value in tensors.items()
        if name.startswith(f"{prefix}/")
    }


def named(selection: Selection, prefix: str) -> dict[str, Tensor]:
    """The tensors of a form under names that begin with ``prefix/``."""
    return {f"{prefix}/{name}": value.clone() for name, value in selection.tensors().items()}
