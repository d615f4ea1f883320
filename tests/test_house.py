"""The house: no circles of imports, rooms in the order of the data, short files, types that only their files know."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from ondevice.forms import FORMS
from ondevice.forms.base import CompactTable
from ondevice.forms.packed import PackedTable
from ondevice.forms.table import EmbeddingTable
from ondevice.methods import METHODS
from ondevice.methods.base import Method

from .conftest import HEAVIEST_FIRST

ROOT = Path(__file__).parents[1]
MAX_LINES = 400
GROUND = ("errors", "files", "memory", "plugins", "quiet", "registry", "version")
ROOMS: list[tuple[str, ...]] = [
    GROUND,
    ("config",),
    ("data",),
    ("forms",),
    ("models",),
    ("recommender",),
    ("next_item",),
    ("bundle",),
    ("training",),
    ("methods",),
    ("run",),
    ("sharded", "study"),
    ("program",),
    ("bench",),
]
"""The rooms of ``ondevice/`` in the order in which data flow: a room imports from itself and from those before it."""
DOORS = ("", "__main__", "start", "cli", "describe")
"""What people enter by, above all rooms: ``import ondevice``, what starts a run, what shows every room's choices."""
WITHOUT_EXECUTORCH = [room for room in ROOMS if room[0] not in ("program", "bench")]
OTHER_MEANINGS = {("ondevice.training.pairs", "uniform")}
"""Words that name a method, but something else in a file: there, how pairs are drawn."""
BASES = (EmbeddingTable, CompactTable, PackedTable, Method)
"""Contracts; that a table keeps to one of them may be asked anywhere."""


class Sources:
    """The Python files of a package, by the name that each is imported by.

    Args:
        files: text of each file by its dotted name; a package's own file goes by the package's name.
        packages: which of the names are packages.
    """

    def __init__(self, files: Mapping[str, str], packages: frozenset[str]) -> None:
        self.trees = {name: ast.parse(text) for name, text in files.items()}
        self.packages = packages

    @classmethod
    def of(cls, folder: Path) -> Sources:
        files, packages = {}, set()
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            files[name] = path.read_text(encoding="utf-8")
            if path.name == "__init__.py":
                packages.add(name)
        return cls(files, frozenset(packages))

    def imports(self, name: str) -> set[str]:
        """The files of this package that a file imports, inside functions too."""
        package = name if name in self.packages else name.rpartition(".")[0]
        result: set[str] = set()
        for node in ast.walk(self.trees[name]):
            if isinstance(node, ast.Import):
                result |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = package.split(".")
                    base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
                for alias in node.names:
                    whole = f"{base}.{alias.name}"
                    result.add(whole if whole in self.trees else base)
        return (result & self.trees.keys()) - {name}

    def circles(self) -> list[list[str]]:
        """Files that import one another in a ring; what a package hands on is looked for in its files."""
        graph = {name: self.imports(name) - self.packages for name in self.trees}
        reached = {name: self._reached(graph, name) for name in graph}
        return sorted(
            {
                tuple(sorted(other for other in reached[name] if name in reached[other]))
                for name in graph
                if name in reached[name]
            }
        )  # type: ignore[return-value]

    @staticmethod
    def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += graph[name]
        return seen

    def upward(self) -> list[str]:
        """Imports from a room that comes later in `ROOMS`."""
        order = dict.fromkeys({room(name) for name in self.trees}, -1)
        order |= {name: place for place, row in enumerate([*ROOMS, DOORS]) for name in row}
        result = []
        for name in self.trees:
            for other in sorted(self.imports(name)):
                one, two = room(name), room(other)
                beside = any(one in row and two in row for row in (GROUND, DOORS))
                if one != two and not beside and order[two] >= order[one]:
                    result.append(f"{name} imports {other}")
        return result


def room(name: str) -> str:
    """The part of a dotted name after ``ondevice``; empty for the package's own file."""
    if name == "ondevice.config.describe":  # stands beside the sections, and reads every registry
        return "describe"
    return name.split(".")[1] if "." in name else ""


@cache
def ondevice() -> Sources:
    return Sources.of(ROOT / "ondevice")


def python_files() -> list[Path]:
    """Those that belong to the repository, new ones included; all below it where git does not know them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        return [p for p in ROOT.rglob("*.py") if not any(part.startswith(".") for part in p.parts)]
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def test_no_circle_of_imports() -> None:
    assert ondevice().circles() == []


def test_a_circle_is_seen_inside_functions_and_by_relative_names() -> None:
    ring = Sources(
        {
            "p": "",
            "p.a": "def late():\n    from p.b import x\n",
            "p.b": "from . import c\nfrom p.d import y\n",
            "p.c": "import p.a\n",
            "p.d": "",
        },
        frozenset({"p"}),
    )
    assert ring.circles() == [("p.a", "p.b", "p.c")]


def test_every_room_has_its_place() -> None:
    known = {name for row in ROOMS for name in row} | set(DOORS)
    rooms = {room(name) for name in ondevice().trees}
    assert rooms <= known, "a new room: say in ROOMS where it stands"
    assert {name for row in ROOMS for name in row} <= rooms


def test_rooms_import_from_those_before_them_alone() -> None:
    assert ondevice().upward() == []


def test_an_import_that_runs_up_is_seen() -> None:
    up = Sources(
        {
            "ondevice": "",
            "ondevice.data": "def late():\n    from ondevice import methods\n",
            "ondevice.methods": "",
        },
        frozenset({"ondevice", "ondevice.data", "ondevice.methods"}),
    )
    assert up.upward() == ["ondevice.data imports ondevice.methods"]


def test_only_programs_and_the_bench_import_executorch_and_torchao() -> None:
    below = {name for row in WITHOUT_EXECUTORCH for name in row}
    result = []
    for name, tree in ondevice().trees.items():
        if room(name) not in below:
            continue
        for node in tree.body:  # those that take effect when the file is imported
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            result += [f"{name}: {m}" for m in modules if m.split(".")[0] in ("executorch", "torchao")]
    assert result == []


def test_no_python_file_is_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()}
    assert len(lengths) > 200
    long = {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > MAX_LINES}
    assert long == {}, f"more than {MAX_LINES} lines: split it by its nouns"


def test_the_files_that_are_tested_first_are_there() -> None:
    assert [name for name in HEAVIEST_FIRST if not (ROOT / "tests" / name).exists()] == []
    assert len({*HEAVIEST_FIRST}) == len(HEAVIEST_FIRST)


def test_no_name_says_found_or_own() -> None:
    """A name says what it holds, not where that came from."""
    vague = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (getattr(node, "id", ""), getattr(node, "arg", ""), getattr(node, "attr", ""))
        if name in ("found", "own", "_found", "_own")
    }
    assert vague == set()


def subclasses(base: type) -> Iterator[type]:
    for each in base.__subclasses__():
        yield each
        yield from subclasses(each)


def guarded_types() -> dict[str, str]:
    """Names of the classes that only their own file may ask for, and that file's dotted name."""
    classes = {FORMS[name] for name in FORMS} | {METHODS[name] for name in METHODS}
    for base in BASES:
        classes |= set(subclasses(base)) - set(BASES)
    return {each.__name__: each.__module__ for each in classes if each.__module__.startswith("ondevice.")}


def checks_of(tree: ast.AST, types: frozenset[str], names: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Lines that ask for one of some types, or compare something with one of some method's names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("isinstance", "issubclass") and len(node.args) == 2:
                yield from ((node.lineno, name) for name in sorted(named(node.args[1]) & types))
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(is_type_of(side) for side in sides):
                yield from ((node.lineno, name) for side in sides for name in sorted(named(side) & types))
            yield from ((node.lineno, text) for side in sides for text in sorted(literals(side) & names))
        elif isinstance(node, ast.MatchValue):
            yield from ((node.lineno, text) for text in sorted(literals(node.value) & names))
        elif isinstance(node, ast.MatchClass):
            yield from ((node.lineno, name) for name in sorted(named(node.cls) & types))


def named(node: ast.expr) -> set[str]:
    """Last parts of the names in an expression: Sizes and sizes.Sizes, in tuples and unions too."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)
    }


def is_type_of(node: ast.expr) -> bool:
    """Whether it is type(x) or x.__class__."""
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "type"
    return called or (isinstance(node, ast.Attribute) and node.attr in ("__class__", "__name__"))


def literals(node: ast.expr) -> set[str]:
    """Texts that something is compared with, alone or in a tuple, list or set."""
    parts = node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else [node]
    return {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def test_no_type_or_name_of_a_form_table_or_method_outside_its_own_file() -> None:
    """In the library and its scripts; tests and benchmarks may."""
    types, names = guarded_types(), frozenset(METHODS)
    assert {"Sizes", "Mask", "Codes", "CodedEmbedding", "CodedStaircase", "PEP"} <= types.keys()
    trees = dict(ondevice().trees)
    for folder in ("train", "export"):
        for path in (ROOT / folder).glob("*.py"):
            trees[f"{folder}.{path.stem}"] = ast.parse(path.read_text(encoding="utf-8"))
    result = [
        f"{name}:{line} asks for {what}"
        for name, tree in trees.items()
        for line, what in checks_of(tree, frozenset(types), names)
        if not is_at_home(what, name, types) and (name, what) not in OTHER_MEANINGS
    ]
    assert result == []


def is_at_home(what: str, file: str, types: Mapping[str, str]) -> bool:
    """Whether a file defines the class of that name, or the method."""
    return file == (METHODS[what].__module__ if what in METHODS else types[what])


@pytest.mark.parametrize(
    "source",
    [
        "isinstance(form, Sizes)",
        "isinstance(form, (int, sizes.Sizes))",
        "issubclass(type(form), Mask | Sizes)",
        "type(form) is Sizes",
        "form.__class__ == Sizes",
        "type(form).__name__ == Sizes.__name__",
        "settings.method.name == 'pep'",
        "'pep' != name",
        "name in ('pep', 'other')",
        "match name:\n    case 'pep':\n        pass",
        "match form:\n    case Sizes():\n        pass",
    ],
)
def test_each_way_of_asking_is_seen(source: str) -> None:
    assert [*checks_of(ast.parse(source), frozenset({"Sizes", "Mask"}), frozenset({"pep"}))] != []


@pytest.mark.parametrize(
    "source", ["isinstance(form, Form)", "Sizes(sizes, 4)", "METHODS['pep']", "name == 'staircase'"]
)
def test_what_asks_for_nothing_is_let_through(source: str) -> None:
    assert [*checks_of(ast.parse(source), frozenset({"Sizes"}), frozenset({"pep"}))] == []
