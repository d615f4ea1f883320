"""The script that fetches Gradle, with a distribution of one line in place of Gradle's."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parent.parent
PROPERTIES = "gradle/wrapper/gradle-wrapper.properties"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with `gradlew`, whose properties name ``gradle-9.9-bin.zip`` beside it."""
    folder = tmp_path / "a project"
    (folder / PROPERTIES).parent.mkdir(parents=True)
    shutil.copy2(DEMO / "gradlew", folder)
    distribution = folder / "gradle-9.9-bin.zip"
    with zipfile.ZipFile(distribution, "w") as archive:
        entry = zipfile.ZipInfo("gradle-9.9/bin/gradle")
        entry.external_attr = 0o100755 << 16
        archive.writestr(entry, '#!/bin/sh\necho "gradle in $PWD: $*"\n')
    pin(folder, hashlib.sha256(distribution.read_bytes()).hexdigest())
    return folder


def pin(project: Path, sha256: str) -> None:
    url = (project / "gradle-9.9-bin.zip").as_uri().replace(":", r"\:", 1)
    text = f"distributionSha256Sum={sha256}\ndistributionUrl={url}\n"
    (project / PROPERTIES).write_text(text)


def gradlew(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    home = {"HOME": str(project / "home"), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [project / "gradlew", *words], env=home, capture_output=True, text=True, check=False, cwd="/"
    )


def test_gradle_is_fetched_once_and_run_in_its_project(project: Path) -> None:
    first = gradlew(project, ":app:installDebug", "-q")
    assert first.stdout == f"gradle in {project}: :app:installDebug -q\n", first.stderr
    (project / "gradle-9.9-bin.zip").unlink()
    assert gradlew(project, "tasks").stdout == f"gradle in {project}: tasks\n"
    (kept,) = (project / "home/.gradle/wrapper/ondevice").iterdir()
    assert [path.name for path in kept.iterdir()] == ["gradle-9.9"]


def test_another_distribution_is_not_run(project: Path) -> None:
    pin(project, "0" * 64)
    refused = gradlew(project, "tasks")
    assert refused.returncode == 1
    assert "not the pinned 0000" in refused.stderr
    assert refused.stdout == ""
    assert list((project / "home/.gradle/wrapper/ondevice").iterdir()) == []


def test_what_cannot_be_fetched_is_said(project: Path) -> None:
    (project / "gradle-9.9-bin.zip").unlink()
    refused = gradlew(project)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].endswith("gradle-9.9-bin.zip cannot be fetched")


def test_the_committed_distribution_is_pinned() -> None:
    text = (DEMO / PROPERTIES).read_text(encoding="utf-8")
    assert re.search(r"^distributionSha256Sum=[0-9a-f]{64}$", text, re.MULTILINE)
    assert re.search(r"^distributionUrl=https\\://services\.gradle\.org/\S+-bin\.zip$", text, re.MULTILINE)
