"""Methods and models of a user's own: docs/extending.md as it stands, from its files to a program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ondevice.errors import UserError
from ondevice.plugins import check_loaded, load_plugins

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with the page's two plugins."""
    for code in blocks("python"):
        name = re.match(r'"""(\w+\.py)"""', code)
        assert name is not None
        (tmp_path / name[1]).write_text(code, encoding="utf-8")
    assert (tmp_path / "my_method.py").exists()
    assert (tmp_path / "my_model.py").exists()
    return tmp_path


def python(code: str, folder: Path, plugins: str = "", path: str = "") -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, in a folder, with this checkout on the path."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), path))),
        "ONDEVICE_PLUGINS": plugins,
    }
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


TRAIN = """
import ondevice
run = ondevice.train("my_config.yaml", "run")
(bundle,) = ondevice.export(run)
loaded = ondevice.load_bundle(bundle)
loaded.check_golden()
print("kept", run.metrics["compact"]["kept_parameters"], loaded.manifest["model"], loaded.manifest["method"])
"""
EXPORT = "import ondevice; print(ondevice.export('run', output='again'))"
OPEN = "from ondevice.run.directory import Run; print('kept', Run('run').compact('50pct').num_kept())"


def test_a_method_and_a_model_of_a_users_own_train_and_export(
    files: Path, table_files: tuple[Path, Path], cache: Path
) -> None:
    pytest.importorskip("executorch", reason="programs are made with ExecuTorch")
    config = yaml.safe_load(blocks("yaml")[0])
    schema, path = table_files
    config["data"] = {"name": "table", "schema": str(schema), "path": str(path)}
    config["run"] = {"device": "cpu", "progress": False}
    config["embedding"] = {"dim": 4}
    config["compact"] |= {"budgets": ["50%"], "store": {"max_size": 4}, "endpoints": ["forward"]}
    (files / "my_config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    trained = python(TRAIN, files)
    assert trained.returncode == 0, trained.stderr
    kept, model, method = re.search(r"kept (\d+) (\w+) (\w+)", trained.stdout).groups()  # type: ignore[union-attr]
    assert int(kept) > 0
    assert (model, method) == ("fwfm", "logarithmic")
    refused = python(EXPORT, files)
    assert refused.returncode != 0
    assert "whose code a run directory does not start by itself" in refused.stderr
    opened = python(OPEN, files, plugins=os.pathsep.join(("my_method.py", "my_model.py")))
    assert opened.returncode == 0, opened.stderr
    assert f"kept {kept}" in opened.stdout


def test_they_pass_the_contract_tests(files: Path) -> None:
    plugins = os.pathsep.join(str(files / name) for name in ("my_method.py", "my_model.py"))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "logarithmic or fwfm"]
    command += ["tests/methods/test_methods.py", "tests/models/test_models.py"]
    environment = {**os.environ, "ONDEVICE_PLUGINS": plugins}
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST", "PYTEST_ADDOPTS"):
        environment.pop(name, None)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 15


def test_an_installed_package_offers_its_own(files: Path) -> None:
    info = files / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ondevice.plugins]\nmy_methods = my_method\n")
    code = "import runpy, sys; sys.argv = ['ondevice', 'list']; runpy.run_module('ondevice', run_name='__main__')"
    listed = python(code, files, path=str(files))
    assert "logarithmic" in listed.stdout, listed.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"plugins: .*broken\.py: no such file"),
        ("import nothing_of_that_name", r"broken\.py: fails with ModuleNotFoundError"),
        ("raise KeyError(3)", r"broken\.py: fails with KeyError"),
    ],
)
def test_a_plugin_that_does_not_load_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "broken.py").write_text(content)
    with pytest.raises(UserError, match=message):
        load_plugins([tmp_path / "broken.py"])


def test_a_plugin_is_loaded_once(tmp_path: Path) -> None:
    path = tmp_path / "counts.py"
    path.write_text("import builtins; builtins.loads = getattr(builtins, 'loads', 0) + 1")
    load_plugins([path, str(path)])
    load_plugins([path])
    import builtins

    assert builtins.loads == 1  # type: ignore[attr-defined]
    check_loaded(["elsewhere/counts.py"], "run")
    with pytest.raises(UserError, match=r"run: was made with the plugin other\.py"):
        check_loaded(["other.py"], "run")
