"""The contract of a target: how endpoints become a program of one runtime, how it is run here, and what is in it."""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from ondevice.registry import Registry

if TYPE_CHECKING:
    from ondevice.program.endpoints import Endpoint

TARGETS: Registry[type[Target]] = Registry("target")
"""Runtimes by name: `ondevice.program.targets` has the one that ships, `ondevice.bench.peers.targets` others."""


@dataclass(frozen=True)
class Lowered:
    """A finished program.

    Args:
        data: its file.
        ops: operators it calls.
        backends: backends it delegates to.
        num_delegated: operators inside delegates, all endpoints together.
        num_portable: operators outside.
    """

    data: bytes
    ops: tuple[str, ...]
    backends: tuple[str, ...] = ()
    num_delegated: int = 0
    num_portable: int = 0


@dataclass(frozen=True)
class Constant:
    """A constant tensor of a program's graph, outside delegates.

    Args:
        part: the one of `Inspection.parts` that it belongs to.
        num_bytes: bytes of its values, without padding.
        shape: as stored.
    """

    part: str
    num_bytes: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Inspection:
    """A program taken apart.

    Args:
        num_bytes: of the file.
        parts: bytes by what they hold; they add up to ``num_bytes``.
        constants: tensors that are stored.
        methods: names of its methods.
        ops: operators it calls, sorted.
        backends: backends it delegates to, sorted.
        delegated_fraction: share of nodes that lie inside delegates, views and shapes not counted.
    """

    num_bytes: int
    parts: dict[str, int]
    constants: list[Constant]
    methods: list[str]
    ops: tuple[str, ...]
    backends: tuple[str, ...] = ()
    delegated_fraction: float = 0.0


class OpenProgram(Protocol):
    """A program on its runtime."""

    @property
    def methods(self) -> Sequence[str]:
        """Names of its methods."""

    def __call__(self, method: str, *inputs: np.ndarray) -> list[np.ndarray]:
        """Run a method on int64 arrays.

        Raises: UserError: when there is no such method, or it cannot be run on these arrays.
        """


class Target(ABC):
    """One runtime.

    What is timed does not go through `open`, which may import more than a runtime: `ondevice.bench.measure.runtime` and
    `ondevice.bench.peers.measured` load the libraries alone.
    """

    packages: ClassVar[tuple[str, ...]]
    """Packages that it needs here, by the name they are imported by."""
    takes_any_rows: ClassVar[bool] = True
    """Whether a program takes any number of rows up to an endpoint's batch, and not only as many as the example."""

    @classmethod
    def missing(cls) -> list[str]:
        """Those of `packages` that are not installed."""
        return [name for name in cls.packages if importlib.util.find_spec(name) is None]

    def load_exporter(self) -> None:
        """Import what `lower` needs, so that an export's time and memory can be measured without it."""
        for name in self.packages:
            importlib.import_module(name)

    @abstractmethod
    def lower(self, endpoints: Mapping[str, Endpoint]) -> Lowered:
        """The program of some endpoints.

        Raises: UserError: when the runtime cannot have such a program.
        """

    @abstractmethod
    def open(self, data: bytes, name: str = "program") -> OpenProgram:
        """A program, ready to run.

        Args:
            data: content of its file.
            name: of the file, for messages.

        Raises: UserError: when the runtime is absent or refuses the program.
        """

    @abstractmethod
    def inspect(
        self, data: bytes, name: str = "program", *, first_order_rows: int | None = None
    ) -> Inspection:
        """What is in a program, read from its file.

        Args:
            data: content of its file.
            name: of the file, for messages.
            first_order_rows: rows of the first-order table, to know it among tables of width 1; None where there is
                no other such table.

        Raises: DamagedFile: when it is no program of this runtime.
        """
