"""Every command of README and docs resolves to the settings that it had before recipes and sections changed.

``settings.json`` holds the commands of README.md, docs/ and android_demo/README.md at commit 079050f, options of tables
joined to the command above them, with the settings that were resolved there: those that differ from the defaults of
that commit, which are beside them.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from ondevice.config.file import load
from ondevice.config.moved import MOVED
from ondevice.config.sections import SCHEDULE, ResearchConfig
from ondevice.methods import METHODS
from ondevice.run.preflight import check_options

from ..optional import torchao_or_skip

ROOT = Path(__file__).resolve().parents[2]
BEFORE = json.loads((Path(__file__).parent / "settings.json").read_text(encoding="utf-8"))
RESEARCH = {entry.name for entry in dataclasses.fields(ResearchConfig)}
RENAMED = {
    **{f"retrain.{key}": f"research.{key}" for key in RESEARCH},
    **{key: present for key, present in MOVED.items() if "." in key},
}
"""Keys that have another name now; other keys of a section that has one follow it."""
GONE = {f"training.{key}" for key in RESEARCH}
"""Keys that there are no longer, which no command gave."""
ADDED = {
    # since ``retrain`` takes nothing from ``training``
    "training.embedding_penalty=1e-3": ["compact.train.embedding_penalty=1e-3"],
    # since another method does not keep the search of the one before
    "method=code_saliency": ["compact.sizes.epochs=3"],
}
"""What a command says besides."""
WRITTEN = {
    "retrain.form=sizes": [],
    "retrain.form=positions": ["compact.store=positions"],
    "retrain.code_dims=null": ["compact.store=int8"],
    "retrain.code_choice=loss": [],  # of a command without codes, where it had no effect
}
"""What is written for settings that are choices now."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def present(key: str) -> str:
    """The key that has the value of an old one."""
    section, _, name = key.partition(".")
    if key in RENAMED:
        return RENAMED[key]
    return f"{MOVED[section]}.{name}" if section in MOVED else key


def as_written_now(command: list[str]) -> list[str]:
    config, *overrides = command
    has_codes = load(ROOT / config).compact.store.codes is not None
    written = []
    for override in overrides:
        key, _, value = override.partition("=")
        if override in WRITTEN and not (key == "retrain.code_choice" and has_codes):
            written += WRITTEN[override]
        else:
            short = present(key) if "." in key else MOVED.get(key, key)
            written.append(f"{short}={value}")
        if key != "method" or not has_codes:
            written += ADDED.get(override, [])
    return [config, *written]


def has_effect(key: str, before: dict[str, Any]) -> bool:
    """Whether an old setting changed anything in its run: others need not be the same now."""
    section, _, name = key.partition(".")
    if section == "search" and name in SCHEDULE:
        return name in METHODS[before["method.name"]].search_keys
    if name in ("max_size", "size_step") and section == "retrain":
        return bool(before["retrain.form"] == "sizes")
    return before["retrain.code_dims"] is not None or not name.startswith("code_") or name == "code_dims"


@pytest.mark.parametrize("row", BEFORE["commands"], ids=lambda row: " ".join(row["command"])[14:])
def test_a_command_resolves_to_the_settings_of_before(row: dict[str, Any]) -> None:
    config, *overrides = as_written_now(row["command"])
    now = load(ROOT / config, overrides).flat()
    now["compact.store.form"] = "positions" if now["compact.store.name"] == "positions" else "sizes"
    now.setdefault("compact.store.code_dims", None)
    before = {**BEFORE["defaults"], **row["settings"]}
    sections_with_options = ("data.", "model.", "method.")  # defaults of constructors, no keys of old entries
    for key, value in before.items():
        if (key in row["settings"] or not key.startswith(sections_with_options)) and has_effect(key, before):
            where = "compact.store.form" if key == "retrain.form" else present(key)
            expected = BEFORE["defaults"][key] if key in GONE else now[where]
            assert expected == value, key


def commands_of(page: Path) -> list[list[str]]:
    """The whole commands in a page's fenced blocks: a configuration that comes along, and its overrides."""
    result = []
    for block in re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            match = re.search(r"(train/configs/\w+\.yaml)\b(.*)", line)
            if match and "schema" not in line.split(match[1])[0]:
                words = shlex.split(match[2].replace("$s", "0"), comments=True)
                overrides = [w for w in words if re.match(r"[a-z]+(\.[a-z_]+)*=", w) and "…" not in w]
                result.append([match[1], *overrides])
    return result


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_can_be_given(page: Path) -> None:
    """Its keys exist, and each of its options has an effect."""
    for config, *overrides in commands_of(page):
        with torchao_or_skip():
            check_options(load(ROOT / config, overrides))


def test_pages_have_commands() -> None:
    assert sum(len(commands_of(page)) for page in PAGES) > 10
    assert len(BEFORE["commands"]) > 50
