"""The Python of the README and of docs/extending.md runs as it stands, on a few rows; what pages link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
EXTENDING = README.parent / "docs" / "extending.md"


def block(heading: str, page: Path = README) -> str:
    """The first Python block under a heading."""
    text = page.read_text(encoding="utf-8")
    match = re.search(rf"^## {re.escape(heading)}\n.*?^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert match, f"{page.name} has no Python under '{heading}'"
    return match[1]


def anchors(page: Path) -> set[str]:
    """The names under which a page's headings are linked to."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "android_demo/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    """The pages that `make docs` does not build."""
    here = README.parent / page
    for target in re.findall(r"\]\(([^)\s]+)\)", here.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = here.parent / path if path else here
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


PAGES = [README, README.parent / "CONTRIBUTING.md", *sorted((README.parent / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(README.parent)))
def test_files_that_pages_name_are_there(page: Path) -> None:
    for name in re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text(encoding="utf-8")):
        assert any((README.parent / room / name).exists() for room in ("", "ondevice", "android_demo")), name


def shrunk(code: str) -> str:
    """The same code on 5,000 rows, one epoch of everything, and without the endpoint that nothing asks."""
    small = code.replace('"fields": "full"', '"fields": "full", "max_rows": 5000')
    assert small != code
    code, small = small, small.replace('"budgets"', '"endpoints": ["rank", "recommend"], "budgets"')
    assert small != code
    return re.sub(r'"epochs": \d+', '"epochs": 1', small)


def test_training_compacting_and_exporting_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("executorch", reason="programs are made with ExecuTorch")
    code = block("Use it as a library")
    assert len(code.splitlines()) < 30
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(shrunk(code), "README.md", "exec"), names)
    films = names["films"]
    assert isinstance(films, list)
    assert len(films) == 5
    scores = [film["score"] for film in films]
    assert scores == sorted(scores, reverse=True)


def test_adding_a_method_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ondevice.methods import METHODS

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    names: dict[str, object] = {}
    before = set(METHODS)
    exec(compile(block("A method", EXTENDING), "extending.md", "exec"), names)
    (name,) = set(METHODS) - before
    import ondevice

    data = {"name": "movielens_1m", "max_rows": 5000}
    once = {"epochs": 1, "batch_size": 256}
    config = {"data": data, "train": once, "run": {"progress": False}}
    run = ondevice.train({**config, "compact": {"sizes": name, "budgets": ["20%"]}}, tmp_path / "run")
    assert 0 < run.metrics["compact"]["kept_parameters"] <= 0.2 * run.dense().num_values()
