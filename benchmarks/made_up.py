"""Files in Criteo's format with made-up rows: cardinalities, frequencies and gaps like those of the real ones."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import numpy as np

CARDINALITIES = (  # distinct values of C1 to C26 in the Kaggle set, as DLRM (Naumov et al., 2019) counts them
    *(
        1460,
        583,
        10131227,
        2202608,
        305,
        24,
        12517,
        633,
        3,
        93145,
        5683,
        8351593,
        3194,
        27,
        14992,
        5461306,
        10,
    ),
    *(5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572),
)
EXPONENT = (
    1.05  # of Zipf's law: gives the large columns about as many distinct values in 10,000 rows as they have
)
MISSING = (  # share of empty cells, as in 10,000 real rows
    *(0.45, 0.0, 0.2, 0.2, 0.05, 0.25, 0.05, 0.0, 0.05, 0.45, 0.05, 0.77, 0.2),
    *(
        0.0,
        0.0,
        0.036,
        0.036,
        0.0,
        0.13,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.036,
        0.0,
        0.0,
        0.0,
        0.036,
        0.0,
        0.0,
        0.45,
        0.45,
    ),
    *(0.036, 0.82, 0.0, 0.036, 0.45, 0.45),
)
MEDIANS = (1, 3, 7, 4, 2491, 40, 3, 7, 41, 1, 1, 1, 5)  # of I1 to I13
POSITIVES = 0.256
BLOCK_ROWS = 100_000


def write_criteo(path: str | os.PathLike[str], num_rows: int, seed: int = 0) -> None:
    """A file of ``num_rows`` rows: label, 13 integers, 26 hexadecimal texts; the same for the same seed."""
    with open(path, "wb") as out:
        for block, start in enumerate(range(0, num_rows, BLOCK_ROWS)):
            rows = min(BLOCK_ROWS, num_rows - start)
            _write_block(out, rows, np.random.default_rng([seed, block]))


def _write_block(out: BinaryIO, rows: int, random: np.random.Generator) -> None:
    import pyarrow as pa
    from pyarrow import csv

    columns: list[Any] = [pa.array((random.random(rows) < POSITIVES).astype(np.int8))]
    for position, missing in enumerate(MISSING):
        gone = random.random(rows) < missing if missing else None
        if position < len(MEDIANS):
            values = np.exp(random.normal(np.log(MEDIANS[position]), 1.5, rows))
            columns.append(pa.array(np.floor(values).astype(np.int64), mask=gone))
        else:
            column = position - len(MEDIANS)
            columns.append(_hexadecimal(zipf(random, rows, CARDINALITIES[column]), column, gone))
    table = pa.table(columns, names=[str(i) for i in range(len(columns))])
    options = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    csv.write_csv(table, out, options)


def zipf(random: np.random.Generator, rows: int, cardinality: int) -> np.ndarray:
    """Ranks from 1, rank r with a probability about r^-EXPONENT: the inverse of the continuous law."""
    power = 1 - EXPONENT
    ranks = (((cardinality + 1.0) ** power - 1) * random.random(rows) + 1) ** (1 / power)
    return np.minimum(ranks, cardinality).astype(np.uint64)


def _hexadecimal(ranks: np.ndarray, column: int, gone: np.ndarray | None) -> Any:
    """Eight hexadecimal digits that a rank of a column is hashed to."""
    import pyarrow as pa

    hashed = (ranks + np.uint64(column << 32)) * np.uint64(0x9E3779B97F4A7C15)
    hashed = (hashed ^ (hashed >> np.uint64(29))) >> np.uint64(32)
    nibbles = (hashed[:, None] >> np.arange(28, -1, -4, dtype=np.uint64)) & np.uint64(15)
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)[nibbles.astype(np.intp)]
    texts = np.ascontiguousarray(digits).view("S8").ravel()
    return pa.array(texts, mask=gone).cast(pa.string())
