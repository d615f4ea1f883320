"""ExecuTorch, with XNNPACK: what bundles ship for. Running a bundle imports nothing of what makes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ondevice.program.runtime import LoadedProgram
from ondevice.program.target import TARGETS, Inspection, Lowered, Target

if TYPE_CHECKING:
    from ondevice.program.endpoints import Endpoint


@TARGETS.register("executorch")
class ExecuTorch(Target):
    """Programs of the stock ExecuTorch runtime, delegated to XNNPACK."""

    packages = ("executorch",)

    def load_exporter(self) -> None:
        from ondevice.program.lower import load_exporter

        load_exporter()

    def lower(self, endpoints: Mapping[str, Endpoint]) -> Lowered:
        from ondevice.program.lower import lower

        return lower(endpoints)

    def open(self, data: bytes, name: str = "program") -> LoadedProgram:
        return LoadedProgram(data, name)

    def inspect(
        self, data: bytes, name: str = "program", *, first_order_rows: int | None = None
    ) -> Inspection:
        from ondevice.program.pte import inspect

        return inspect(data, name, first_order_rows)
