"""A small world that can be learnt, and runs of it that take a second. No test here needs the network."""

from __future__ import annotations

import os

# Small models are slower on two threads than on one, and several times so where two tests run at once on two cores.
os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import settings

from ondevice.data.sources import cache_directory
from ondevice.forms.table import TableInfo
from ondevice.methods import METHODS
from ondevice.plugins import load_installed

from .caches import lend
from .once import shared_folder
from .runs import laid_over
from .world import NUM_ITEMS, NUM_USERS, World, make_world, tastes

torch.set_num_threads(1)
settings.register_profile("busy", deadline=None)  # how long an example takes says what else the machine does
settings.load_profile("busy")
HAS_PROGRAMS = all(find_spec(name) is not None for name in ("torchao", "executorch"))
collect_ignore = [] if HAS_PROGRAMS else ["program", "bundle", "bench"]
HEAVIEST_FIRST = (
    "program/test_lower.py",
    "sharded/test_sharded.py",
    "program/test_places.py",
    "forms/test_contract.py",
    "program/test_export.py",
    "program/test_history.py",
    "run/test_travel.py",
    "bench/peers/test_runs.py",
    "bench/dense/test_baselines.py",
    "bench/report/test_pareto.py",
    "bench/test_benchmark.py",
    "program/test_resealed.py",
    "training/test_ddp.py",
    "study/test_study.py",
    "program/test_next_item.py",
    "bundle/test_fingerprints.py",
    "program/test_bags.py",
    "bench/dense/test_careful.py",
    "bench/measure/test_worker.py",
    "bundle/test_fitting.py",
)
"""Files of half a minute and more: two processes that take these first, and the short ones last, end together."""
load_installed()  # so that the contract tests cover what ONDEVICE_PLUGINS names


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files change places; the tests of one stay in order."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(HEAVIEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Said beside the skipped tests: where training alone is installed, those of programs cannot be imported."""
    if collect_ignore:
        left_out = ", ".join(f"tests/{name}" for name in collect_ignore)
        terminalreporter.write_line(f"LEFT OUT {left_out}: torchao or ExecuTorch is not installed")


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()


@pytest.fixture
def info() -> TableInfo:
    """Three fields of 3, 2 and 4 ids; the unknown ids 0 and 5 never occur in training."""
    return TableInfo(torch.tensor([0, 3, 5, 9]), torch.tensor([0, 5, 1, 2, 4, 0, 3, 2, 1]))


@pytest.fixture(scope="session")
def table_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same world as a user has it: a schema in YAML and a CSV."""
    folder = tmp_path_factory.mktemp("table")
    schema = {
        "name": "tiny",
        "fields": [
            {"name": "user", "side": "context", "kind": "integer"},
            {"name": "age", "side": "context", "kind": "integer"},
            {"name": "item", "side": "item", "kind": "string"},
        ],
        "label": {"column": "liked"},
        "item_key": "item",
    }
    (folder / "tiny.schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False))
    rows = [f"{u},{a},film {i},{y}\n" for u, a, i, y in zip(*tastes(2000), strict=True)]
    (folder / "tiny.csv").write_text("user,age,item,liked\n" + "".join(rows))
    return folder / "tiny.schema.yaml", folder / "tiny.csv"


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all processes of this session write stores, and not in the cache of whoever runs them, which is read."""
    folder = lend(cache_directory(), shared_folder(tmp_path_factory) / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(folder))
        yield folder


@pytest.fixture
def cache(session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The session's, where a folder's tests have each their own."""
    monkeypatch.setenv("ONDEVICE_CACHE", str(session_cache))
    return session_cache


@pytest.fixture
def tiny_config(table_files: tuple[Path, Path], cache: Path) -> Callable[..., dict[str, Any]]:
    """Plain values of a configuration that runs in about a second; keywords replace keys of its sections.

    Compact models are trained as the dense one where nothing else is said; a method that trains reads a short schedule.
    Programs have one endpoint where no others are asked for: each further one takes as long to lower.
    """

    def make(**sections: dict[str, Any]) -> dict[str, Any]:
        schema, path = table_files
        values: dict[str, Any] = {
            "data": {"name": "table", "schema": str(schema), "path": str(path)},
            "model": {"name": "deepfm", "hidden": [8], "dropout": 0.1},
            "embedding": {"dim": 4},
            "train": {"epochs": 2, "batch_size": 128, "learning_rate": 0.01},
            "compact": {"budgets": ["50%", 100], "sizes": {"name": "pep"}, "endpoints": ["forward"]},
            "run": {"device": "cpu", "progress": False},
        }
        values = laid_over(values, sections)
        compact = values["compact"]
        method = METHODS[compact["sizes"]["name"]]
        schedule = {"epochs": 2, "batch_size": 128, "learning_rate": 0.01, "check_every": 5}
        read = {key: schedule[key] for key in method.search_keys if key in schedule}
        compact["sizes"] = {**read, **compact["sizes"]}
        store = compact.get("store", {})
        if not method.ships_as_selected and store.get("name") != "positions":
            compact["store"] = {"max_size": 4, **store}
        compact["train"] = {**values["train"], **compact.get("train", {})}
        return values

    return make


@pytest.fixture
def movielens_folder(tmp_path: Path) -> Path:
    """The same world in the three files of MovieLens-1M's archive."""
    return write_movielens(tmp_path / "ml-1m")


def write_movielens(folder: Path) -> Path:
    folder.mkdir()
    user, _, item, labels = tastes(1000)
    ages = [1, 18, 25, 35, 45]
    ratings = [
        f"{u}::{i}::{5 if y else 1}::{978300000 + 60 * n}\n"
        for n, (u, i, y) in enumerate(zip(user, item, labels, strict=True))
    ]
    users = [f"{u}::{'FM'[u % 2]}::{ages[u % 5]}::{u % 7}::{10000 + u}\n" for u in range(1, NUM_USERS + 1)]
    movies = [f"{i}::Film {i} ({1980 + i})::Drama\n" for i in range(1, NUM_ITEMS + 1)]
    for name, lines in (("ratings", ratings), ("users", users), ("movies", movies)):
        (folder / f"{name}.dat").write_text("".join(lines))
    return folder


@pytest.fixture
def book_crossing_folder(tmp_path: Path) -> Path:
    """The same world in the three files of Book-Crossing."""
    folder = tmp_path / "bx"
    folder.mkdir()
    user, _, item, labels = tastes(1000)
    countries = ["usa", "canada", "spain"]
    rows = {
        "BX-Book-Ratings": ['"User-ID";"ISBN";"Book-Rating"']
        + [f'"{u}";"{i:09d}X";"{8 if y else 2}"' for u, i, y in zip(user, item, labels, strict=True)],
        "BX-Users": ['"User-ID";"Location";"Age"']
        + [f'"{u}";"city, state, {countries[u % 3]}";"{20 + u}"' for u in range(1, NUM_USERS + 1)],
        "BX-Books": ['"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher"']
        + [f'"{i:09d}X";"Book {i}";"Author {i % 9}";"{1980 + i % 20}";"P"' for i in range(1, NUM_ITEMS + 1)],
    }
    for name, lines in rows.items():
        (folder / f"{name}.csv").write_bytes("".join(f"{line}\r\n" for line in lines).encode("latin-1"))
    return folder


@pytest.fixture(autouse=True)
def own_random_state() -> Iterator[None]:
    """Each test starts from the same seed, and leaves the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
