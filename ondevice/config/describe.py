"""Every key of a configuration with its default and its sentence, for a terminal and for docs/config.md.

python -m ondevice.config.describe docs/config.md
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ondevice.config import sections, stores
from ondevice.config.recipes import RECIPES
from ondevice.config.sections import Choice, Config
from ondevice.config.stores import STORES, Store
from ondevice.data import DATASETS
from ondevice.errors import ConfigError, run_script
from ondevice.files import atomic_write
from ondevice.methods import METHODS
from ondevice.models import MODELS
from ondevice.models.sequences import SEQUENCE_MODELS
from ondevice.registry import Registry

REGISTRIES: dict[str, Registry[Any]] = {"data": DATASETS, "model": MODELS, "compact.sizes": METHODS}
"""The registry that a section chooses from."""
RECIPE_SENTENCE = "A starting point, of which every key can be changed; null for the defaults."
Sentences = dict[tuple[str, str], str]
"""The sentence of each field, by class and name."""
STORE_SENTENCE = "How what is kept is stored, and its options."
COMMAND = "python -m ondevice.config.describe docs/config.md"


@dataclass(frozen=True)
class Key:
    """One key: ``section.name``, its default as it is written in YAML, and what it means."""

    section: str
    name: str
    default: str
    sentence: str


@dataclass(frozen=True)
class Part:
    """Keys that stand together: those of a section, or the options of one entry of a registry."""

    title: str
    sentence: str
    keys: tuple[Key, ...]


def _written(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _sentences_of_fields() -> Sentences:
    """The text under each field of the sections' dataclasses, by class and field."""
    sentences = {}
    nodes = [node for module in (sections, stores) for node in ast.parse(inspect.getsource(module)).body]
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            for entry, after in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(entry, ast.AnnAssign)
                    and isinstance(entry.target, ast.Name)
                    and isinstance(after, ast.Expr)
                    and isinstance(after.value, ast.Constant)
                ):
                    sentences[node.name, entry.target.id] = _one_line(str(after.value.value))
    return sentences


def _section(name: str, value: Any, sentences: Sentences, title: str = "") -> Part:
    """The keys of a section but for its own sections and for options that follow from its name."""
    kind, keys = type(value), []
    for entry in dataclasses.fields(value):
        default = getattr(value, entry.name)
        if entry.name == "options" or dataclasses.is_dataclass(default):
            continue
        owner = next(c.__name__ for c in kind.__mro__ if (c.__name__, entry.name) in sentences)
        keys.append(Key(name, entry.name, _written(default), sentences[owner, entry.name]))
    return Part(title or name, _one_line(inspect.getdoc(kind) or ""), tuple(keys))


def _arguments(entry: Callable[..., Any], registry: Registry[Any]) -> dict[str, str]:
    """What the docstring of an entry, of the classes it extends, or of the entry it refers to, says of its options."""
    if inspect.isclass(entry):
        sentences: dict[str, str] = {}
        for kind in reversed(entry.__mro__):
            if "__doc__" in vars(kind):
                sentences |= _arguments_of(inspect.cleandoc(kind.__doc__ or ""))
        return sentences
    text = inspect.getdoc(entry) or ""
    other = re.search(r"^Args: as `(?:[\w.]+\.)?(\w+)`", text, re.MULTILINE)
    return _arguments(registry[other[1]], registry) if other else _arguments_of(text)


def _arguments_of(text: str) -> dict[str, str]:
    _, _, rest = text.partition("\nArgs:\n")
    block = re.split(r"^\S", rest, maxsplit=1, flags=re.MULTILINE)[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", block, re.MULTILINE)
    said = {name: _one_line(sentence) for name, sentence in entries if not sentence.startswith("as in ")}
    return {name: re.sub(r"\bNone\b", "null", sentence) for name, sentence in said.items()}


def _shipped(registry: Registry[Any]) -> list[str]:
    """The entries that come with the package, without those of a user's modules."""
    return [name for name in registry if registry[name].__module__.startswith("ondevice.")]


def _entries(section: str, registry: Registry[Any], names: list[str]) -> Iterator[Part]:
    describe = registry.describe()
    for name in names:
        says = _arguments(registry[name], registry)
        keys = [
            Key(section, p.name, _written(p.default), says[p.name])
            for p in inspect.signature(registry[name]).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        ]
        yield Part(f"{section}={name}", describe[name], tuple(keys))


def parts(with_plugins: bool = True) -> Iterator[Part]:
    """All keys, section by section; of a section that names an entry of a registry, the options of each entry.

    Args:
        with_plugins: whether entries count that other packages than this one have registered.
    """
    yield from _parts("", Config(), _sentences_of_fields(), with_plugins)


def _parts(within: str, section: Any, sentences: Sentences, with_plugins: bool) -> Iterator[Part]:
    for entry in dataclasses.fields(section):
        name, value = f"{within}{entry.name}", getattr(section, entry.name)
        if isinstance(value, Store):
            sentence = (
                f"One of {', '.join(STORES)}; each has options, and another keeps those that both have."
            )
            yield Part(name, STORE_SENTENCE, (Key(name, "name", value.name, sentence),))
            for store in STORES:
                yield _section(name, STORES[store](), sentences, f"{name}={store}")
        elif name in REGISTRIES:
            registry = REGISTRIES[name]
            names = list(registry) if with_plugins else _shipped(registry)
            others = list(SEQUENCE_MODELS) if registry is MODELS else []
            either = f" (rows) or {', '.join(others)} (the next item)" if others else ""
            sentence = f"One of {', '.join(names)}{either}; each has its own options."
            named = Key(name, "name", value.name, sentence)
            if isinstance(value, Choice):
                yield Part(name, f"A {registry.kind} and its options.", (named,))
            else:
                yield _sizes(_section(name, value, sentences), named, names)
            yield from _entries(name, registry, names)
            if others:
                yield from _entries(name, SEQUENCE_MODELS, others)
        elif dataclasses.is_dataclass(value):
            yield _section(name, value, sentences)
            yield from _parts(f"{name}.", value, sentences, with_plugins)


def _sizes(part: Part, named: Key, methods: Sequence[str]) -> Part:
    """The keys of ``compact.sizes``, with the methods that read each."""
    keys = [named]
    for key in part.keys:
        if key.name != named.name:
            readers = [method for method in methods if key.name in METHODS[method].search_keys]
            keys.append(dataclasses.replace(key, sentence=f"{key.sentence} Read by {', '.join(readers)}."))
    return dataclasses.replace(part, keys=tuple(keys))


def lines() -> list[str]:
    """The recipes, then every key on a line, ``section.key=default  sentence``, below a line for each section."""
    shown = [f"recipe: {RECIPE_SENTENCE}"]
    shown += [f"  recipe={name}  {_one_line(recipe.sentence)}" for name, recipe in RECIPES.items()]
    for part in parts():
        shown.append(f"{part.title}: {part.sentence}")
        shown += [f"  {key.section}.{key.name}={key.default}  {key.sentence}" for key in part.keys]
    return shown


def markdown() -> str:
    """The text of docs/config.md."""
    text = [
        "# Every key of a configuration",
        "",
        f"Made by `{COMMAND}` from the sentences under the fields of",
        "`ondevice/config/sections.py` and `stores.py` and the docstrings of data sets, models and methods.",
        "A key is written `section.key=value` on a command line, or in its section of a YAML file; the command line",
        "wins over the file, the file over the recipe, the recipe over the defaults. An option that would change",
        "nothing in a run is refused with the reason and the ways out (it counts as given unless it has its default).",
    ]
    text += ["", "## recipe", "", RECIPE_SENTENCE]
    for name, recipe in RECIPES.items():
        text += ["", f"### recipe={name}", "", recipe.sentence, "", "```yaml", recipe.text.strip(), "```"]
    for part in parts(with_plugins=False):
        level = "###" if "=" in part.title else "##"
        text += ["", f"{level} {part.title}", "", _markdown(part.sentence)]
        if part.keys:
            text += ["", "| key | default | |", "|---|---|---|"]
            text += [
                f"| `{key.section}.{key.name}` | `{key.default}` | {_markdown(key.sentence)} |"
                for key in part.keys
            ]
    return "\n".join(text) + "\n"


def _markdown(sentence: str) -> str:
    return sentence.replace("``", "`").replace("|", "\\|")


def main() -> int:
    if len(sys.argv) != 2:
        raise ConfigError(f"got {len(sys.argv) - 1} arguments; name the file to write: {COMMAND}")
    atomic_write(Path(sys.argv[1]), markdown())
    return 0


if __name__ == "__main__":
    run_script(main)
