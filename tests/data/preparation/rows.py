"""Files in the formats of Criteo and Avazu, and settings of property tests."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is slow
SHARED = Path(os.environ.get("ONDEVICE_SHARED", Path(__file__).resolve().parents[4] / "shared"))
HEADER = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
    "device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
)


def real_sample(name: str) -> Path:
    """A file of real rows, which the repository does not hold."""
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"{path} is not here (real rows; ONDEVICE_SHARED names their folder)")
    return path


def criteo_lines(num_rows: int, seed: int = 0) -> list[str]:
    """Rows with few distinct values, empty cells, and the numbers on both sides of 2."""
    random = np.random.default_rng(seed)
    lines = []
    for _ in range(num_rows):
        integers = [str(int(v)) if v > -3 else "" for v in random.integers(-3, 40, 13)]
        categories = [f"{int(v) * 0x9E3779B1 % 2**32:08x}" if v else "" for v in random.zipf(1.5, 26) % 50]
        lines.append("\t".join([str(int(random.random() < 0.3)), *integers, *categories]))
    return lines


def avazu_lines(num_rows: int, seed: int = 0) -> list[str]:
    """Rows of two days, in the order of the hours, without the header."""
    random = np.random.default_rng(seed)
    lines = []
    for row in range(num_rows):
        hour = 14102100 + 100 * (2 * row // num_rows) + (48 * row // num_rows) % 24
        categories = [f"{int(v) * 0x85EBCA6B % 2**32:08x}" for v in random.zipf(1.5, 9) % 40]
        integers = [str(v) for v in random.integers(-1, 20, 10)]
        cells = [str(10**18 + row), str(row % 3 // 2), str(hour), "1005", "0", *categories, *integers]
        lines.append(",".join(cells))
    return lines


def write_lines(path: Path, lines: Iterable[str], end: str = "\n") -> Path:
    """The lines as a file, each with a line break."""
    path.write_bytes("".join(line + end for line in lines).encode())
    return path
