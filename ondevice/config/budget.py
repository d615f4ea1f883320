"""Budgets: what may be kept, in values, shares or bytes, and the labels of folders that follow from them."""

from __future__ import annotations

import re

from ondevice.errors import ConfigError


def parse_budget(budget: int | str) -> tuple[str, float]:
    """The unit and amount of a budget: ("values", n), ("share", of the full tables) or ("bytes", n).

    Raises: ConfigError: when it is none of ``20000``, ``5%``, ``64KB``, ``1.5MB``, ``800B``.
    """
    text = str(budget).strip()
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(%|[kKmM]?B)?", text)
    if match and float(match[1]) > 0:
        amount, unit = float(match[1]), match[2]
        if unit is None and amount == int(amount):
            return "values", amount
        if unit == "%" and amount <= 100:
            return "share", amount / 100
        if unit and unit != "%":
            return "bytes", amount * {"B": 1, "KB": 1000, "MB": 1_000_000}[unit.upper()]
    raise ConfigError(
        f"budget '{text}': allowed are kept values (20000), a share (5%) or bundle bytes (64KB, 1.5MB)"
    )


def budget_label(budget: int | str) -> str:
    """A budget as a folder name: 20000, 5pct, 64KB."""
    parse_budget(budget)
    return str(budget).strip().replace(" ", "").replace("%", "pct")


def elastic_label(target: int) -> str:
    """The label of the compact model that is cut from an elastic one at ``target`` values."""
    return f"elastic-{target}"


def elastic_target(label: str) -> int | None:
    """The number in an `elastic_label`; None for another label."""
    match = re.fullmatch(r"elastic-(\d+)", label)
    return None if match is None else int(match[1])
