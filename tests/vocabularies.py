"""Vocabularies fitted value by value: the reference of what a preparation makes, and made-up data for other tests."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ondevice.data import Field, Vocabulary
from ondevice.data.vocabulary import learnt


def fitted(fields: Sequence[Field], columns: Sequence[Sequence[Any]]) -> Vocabulary:
    """The vocabulary of training columns, one sequence of raw values per field; what they leave open is learnt."""
    whole, counts = [], []
    for field, column in zip(fields, columns, strict=True):
        whole.append(learnt(field, column, np.ones(len(column), dtype=np.int64)))
        bags = map(whole[-1].kept, column) if field.slots > 1 else [whole[-1].keys(column)]
        counts.append(Counter(() if field.is_history else itertools.chain.from_iterable(bags)))
    return of_counts(whole, counts)


def of_counts(fields: Sequence[Field], counts: Sequence[Mapping[Any, int]]) -> Vocabulary:
    """The vocabulary of keys with their training occurrences; the key None is left out."""
    return Vocabulary(
        fields,
        [
            sorted(k for k, count in each.items() if k is not None and count >= field.min_count)
            for field, each in zip(fields, counts, strict=True)
        ],
    )
