"""``ondevice`` as a person meets it: its commands, the scripts that are its twins, and what the wheel holds."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ondevice.cli.configs import config_names, find_config
from ondevice.cli.main import COMMANDS, run_console, run_twin
from ondevice.config.describe import lines
from ondevice.errors import UserError
from ondevice.version import __version__

ROOT = Path(__file__).resolve().parents[2]
TWINS = {
    "train": "train/run.py",
    "study": "train/study.py",
    "export": "export/to_pte.py",
    "benchmark": "export/benchmark.py",
    "peers": "export/peers.py",
}
Ended = tuple[int, str, str]
Ondevice = Callable[..., Ended]


@pytest.fixture
def ondevice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ondevice:
    """The console command, run in this process: exit code, stdout and stderr."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["ondevice", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_console()
        said = capsys.readouterr()
        return int(str(ended.value.code)), said.out, said.err

    return run


def test_the_version_is_said_without_loading_pytorch() -> None:
    code = """
import sys
sys.modules["torch"] = None
sys.argv = ["ondevice", "--version"]
from ondevice.cli.main import run_console
run_console()
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"ondevice {__version__}\n", "")


def test_as_a_module_it_is_the_same() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "ondevice", "trian"], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: no command 'trian' (did you mean 'train'?")


def test_help_names_every_command_with_a_line(ondevice: Ondevice) -> None:
    code, said, errors = ondevice("--help")
    assert (code, errors) == (0, "")
    for name in COMMANDS:
        (line,) = (line for line in said.splitlines() if line.split()[:1] == [name])
        assert len(line.split()) > 5


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_its_own(ondevice: Ondevice, name: str) -> None:
    code, said, errors = ondevice(name, "--help")
    assert (code, errors) == (0, "")
    assert said.startswith(f"usage: ondevice {name} ")
    assert f"\nondevice {name}" in said or f"\n    ondevice {name}" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no command given; choose from: train, export"),
        (["trian"], "no command 'trian' (did you mean 'train'?"),
        (["--verison"], "unrecognized arguments: --verison; see ondevice --help"),
        (["train"], "no config given: name a YAML file"),
        (["train", "nosuch.yaml"], "nosuch.yaml: no such file"),
        (["train", "movielens_1m_deepfm_pap"], "(did you mean 'movielens_1m_deepfm_pep'?"),
        (["train", "movielens_1m_deepfm_pep", "trainig.epochs=3"], "no such section 'trainig'"),
        (["train", "--resum", "--lst"], "unrecognized arguments: --lst; see ondevice train --help"),
        (["export"], "the following arguments are required: run"),
        (["export", "nosuch"], "nosuch: no run directory"),
        (["benchmark", "--repeats", "x"], "--repeats: invalid int value: 'x'; see ondevice benchmark --help"),
        (["benchmark", "run", "--also", "x"], "--also: only used with --pareto"),
        (
            ["study", "x.yaml"],
            "arguments are required: --space, --trials, --output; see ondevice study --help",
        ),
        (["list", "models"], "unrecognized arguments: models; see ondevice list --help"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(ondevice: Ondevice, arguments: list[str], message: str) -> None:
    code, _, errors = ondevice(*arguments)
    assert code == 2
    assert errors.startswith("error: ")
    assert len(errors.splitlines()) == 1
    assert message in errors


@pytest.mark.parametrize("name", TWINS)
def test_a_script_takes_what_its_command_takes(
    ondevice: Ondevice, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    script = ROOT / TWINS[name]
    assert f'run_twin("{name}", "{TWINS[name]}")' in script.read_text()
    assert len(script.read_text().splitlines()) < 15
    _, command, _ = ondevice(name, "--help")
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit):
        run_twin(name, TWINS[name])
    twin = capsys.readouterr().out
    assert f"\npython {TWINS[name]} " in twin.replace("\n    ", "\n")
    assert f"ondevice {name} " not in twin
    options = [text[text.index("\npositional arguments:") :] for text in (command, twin)]
    assert options[0] == options[1]


def test_a_config_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*config_names(), "movielens_1m_deepfm_pep.space"):
        assert Path(find_config(name)).read_text() == (ROOT / f"train/configs/{name}.yaml").read_text()
    assert find_config("mine.yaml") == "mine.yaml"  # what reads it says that it is missing
    assert find_config("folder/mine") == "folder/mine"
    with pytest.raises(UserError, match=r"table_example: no such file, and no config of that name"):
        find_config("table_example")
    (tmp_path / "movielens_1m_deepfm_pep").write_text("the file here goes first")
    assert find_config("movielens_1m_deepfm_pep") == "movielens_1m_deepfm_pep"


def test_configs_are_listed_with_a_line_each(ondevice: Ondevice) -> None:
    code, said, _ = ondevice("list")
    assert code == 0
    lines = said.splitlines()
    listed = lines[lines.index("configs:") + 1 :]
    assert [line.split()[0] for line in listed] == config_names()
    assert all(len(line.split()) > 3 for line in listed)
    assert {path.stem for path in ROOT.glob("train/configs/*.yaml")} == {
        *config_names(),
        "movielens_1m_deepfm_pep.space",
        "table_example.schema",
    }


def test_the_wheel_holds_configs_types_and_the_command(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="building the wheel needs setuptools")
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ondevice", source / "ondevice", symlinks=True, ignore=ignored)
    shutil.copytree(ROOT / "train" / "configs", source / "train" / "configs")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('..'))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith("ondevice_recommender-")
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
        (entry_points,) = (archive.read(name) for name in files if name.endswith("entry_points.txt"))
        for path in (ROOT / "train" / "configs").glob("*.yaml"):
            assert archive.read(f"ondevice/configs/{path.name}") == path.read_bytes()
    assert b"ondevice = ondevice.cli.main:run_console" in entry_points
    assert {"ondevice/py.typed", "ondevice/__main__.py", "ondevice/program/stock_ops.txt"} <= {*files}
    assert not [name for name in files if not name.startswith(("ondevice/", "ondevice_recommender-"))]


def test_every_key_is_printed(ondevice: Ondevice) -> None:
    code, said, errors = ondevice("config")
    assert (code, errors) == (0, "")
    assert said.splitlines() == lines()
    assert "  run.seed=0  Seed of weights, order and dropout (the split has its own)." in said.splitlines()


def test_a_reader_that_ends_early_is_no_error() -> None:
    """As of ``ondevice config | head -1``, whose rest is more than a pipe holds in its buffers."""
    code = "import sys; from ondevice.errors import run_script; run_script(lambda: print('line\\n' * 10**6))"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        assert writer.stdout.readline() == "line\n"
        writer.stdout.close()
        assert writer.stderr.read() == ""
    assert writer.returncode == 0
