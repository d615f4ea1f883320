"""Every registered form keeps the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ondevice.forms import FORMS

from .contract import CHECKS


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_form(name: str, check: Callable[[str, Path], None], tmp_path: Path) -> None:
    check(name, tmp_path)
