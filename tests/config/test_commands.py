"""Every command of README and docs resolves to the settings that it had before recipes and sections changed.

``settings.json`` holds the commands of README.md, docs/ and android_demo/README.md at commit 079050f, options of tables
joined to the command above them, with the settings that were resolved there: those that differ from the defaults of
that commit, which are beside them.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from ondevice.config.file import load
from ondevice.run.preflight import check_options

ROOT = Path(__file__).resolve().parents[2]
BEFORE = json.loads((Path(__file__).parent / "settings.json").read_text(encoding="utf-8"))
RESEARCH = (
    "start",
    "embedding_dropout",
    "pairs_sampling",
    "pairs_popularity",
    "teacher_mean",
    "teacher_temperature",
)
RENAMED = {f"retrain.{key}": f"research.{key}" for key in RESEARCH}
"""Keys that have another name now."""
GONE = {f"training.{key}" for key in RESEARCH}
"""Keys that there are no longer, which no command gave."""
ADDED = {"training.embedding_penalty=1e-3": "retrain.embedding_penalty=1e-3"}
"""What a command says besides since ``retrain`` takes nothing from ``training``."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def as_written_now(command: list[str]) -> list[str]:
    config, *overrides = command
    written = []
    for override in overrides:
        key, _, value = override.partition("=")
        written.append(f"{RENAMED.get(key, key)}={value}")
        if override in ADDED:
            written.append(ADDED[override])
    return [config, *written]


@pytest.mark.parametrize("row", BEFORE["commands"], ids=lambda row: " ".join(row["command"])[14:])
def test_a_command_resolves_to_the_settings_of_before(row: dict[str, Any]) -> None:
    config, *overrides = as_written_now(row["command"])
    now = {
        f"{section}.{key}": value
        for section, keys in load(ROOT / config, overrides).to_dict().items()
        for key, value in keys.items()
    }
    before = {**BEFORE["defaults"], **row["settings"]}
    sections_with_options = (
        "data.",
        "model.",
        "method.",
    )  # defaults of constructors, and no keys of old entries
    for key, value in before.items():
        if key in row["settings"] or not key.startswith(sections_with_options):
            expected = BEFORE["defaults"][key] if key in GONE else now[RENAMED.get(key, key)]
            assert expected == value, key


def commands_of(page: Path) -> list[list[str]]:
    """The whole commands in a page's fenced blocks: a configuration that comes along, and its overrides."""
    found = []
    for block in re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            match = re.search(r"(train/configs/\w+\.yaml)\b(.*)", line)
            if match and "schema" not in line.split(match[1])[0]:
                words = shlex.split(match[2].replace("$s", "0"), comments=True)
                overrides = [w for w in words if re.match(r"[a-z]+(\.[a-z_]+)?=", w) and "…" not in w]
                found.append([match[1], *overrides])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_can_be_given(page: Path) -> None:
    """Its keys exist, and each of its options has an effect."""
    for config, *overrides in commands_of(page):
        check_options(load(ROOT / config, overrides))


def test_pages_have_commands() -> None:
    assert sum(len(commands_of(page)) for page in PAGES) > 10
    assert len(BEFORE["commands"]) > 50
