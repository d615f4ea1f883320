"""The site of docs/ is built as `make docs` builds it: no broken link, no page out of the menu, no unknown name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("mkdocs", reason="the site needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_site_builds(tmp_path: Path) -> None:
    built = build(ROOT / "mkdocs.yml", tmp_path / "site")
    assert built.returncode == 0, built.stderr
    assert "load_bundle" in (tmp_path / "site" / "api" / "bundle.html").read_text(encoding="utf-8")


def test_broken_links_end_the_build(tmp_path: Path) -> None:
    links = ["nothing.md", "results.md#nothing", "../ondevice/nothing.py"]
    for folder in ("docs", "ondevice"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / "studies.md").open("a", encoding="utf-8") as page:
        page.write("".join(f"\n[x]({link})" for link in links))
    built = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert built.returncode == 1
    warnings = [line for line in built.stderr.splitlines() if "'studies.md' contains a link" in line]
    assert len(warnings) == len(links)
