"""Names for data sets, models and methods: one decorator beside each class, no list to edit."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from ondevice.errors import ConfigError, nearest

T = TypeVar("T", bound=Callable[..., Any])


class Registry(Generic[T]):
    """A mapping from a public name to the class or function that carries it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: enter the class under ``name``. Raises ValueError when the name is taken."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(
                    f"{self.kind} '{name}' is registered twice: {self._entries[name]} and {entry}"
                )
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise ConfigError(f"unknown {self.kind} '{name}' {nearest(name, self._entries)}")
        return self._entries[name]

    def name_of(self, entry: T) -> str:
        """The name that a class was registered under.

        Raises: KeyError: when it was not.
        """
        for name, other in self._entries.items():
            if other is entry:
                return name
        raise KeyError(f"{entry} is no registered {self.kind}")

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def describe(self) -> dict[str, str]:
        """Each name with the first line of its docstring."""
        return {name: (inspect.getdoc(self._entries[name]) or "").split("\n")[0] for name in self}

    def check_options(
        self, name: str, options: Mapping[str, Any], where: str, others: Sequence[str] = ()
    ) -> None:
        """Whether a constructor takes these options as keyword-only arguments.

        Args:
            name: of the entry.
            options: that are given for it.
            where: the section that they are in.
            others: keys that may stand beside them.

        Raises: ConfigError: when the name is unknown, or an option.
        """
        if name not in self:
            raise ConfigError(f"{where}: unknown {self.kind} '{name}' {nearest(name, self._entries)}")
        parameters = inspect.signature(self[name]).parameters.values()
        allowed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        for key in options:
            if key not in allowed:
                raise ConfigError(
                    f"{where}.{key}: {self.kind} '{name}' has no such option {nearest(key, [*allowed, *others])}"
                )


def import_siblings(package: str, path: list[str]) -> None:
    """Import every module of a package, so that a new file's registration takes effect with no other edit."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
