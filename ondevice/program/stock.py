"""What the stock Android runtime registers, as a committed list, and the check of a program against it.

Make the list again, on a desktop with the version of ExecuTorch that pyproject.toml names:

    python -m ondevice.program.stock
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ondevice.errors import UserError
from ondevice.files import atomic_write
from ondevice.quiet import quiet

STOCK_LIST = "stock_ops.txt"
BACKEND = "XnnpackBackend"
# extension/llm/custom_ops of ExecuTorch, linked into the Android library and not into the Python runtime
LLAMA = (
    "llama::custom_quantized_sdpa.out",
    "llama::custom_sdpa.out",
    "llama::fallback.out",
    "llama::fast_hadamard_transform.out",
    "llama::sdpa_with_kv_cache.out",
    "llama::update_cache.out",
    "llama::update_cache_with_indices.out",
)
# in 1.4's Android library, but not in the 1.3 build that other packages ship: programs do without
RECENT = (
    "et_copy::_d2h_copy.out",
    "et_copy::_h2d_copy.out",
    "executorch_prim::sym_int.Scalar",
    "executorch_prim::sym_ite.Scalar",
    "executorch_prim::sym_not.Scalar",
)
HEAD = """\
# Operators and the backend that a program for the stock Android runtime may use
# (org.pytorch:executorch-android {version}), one a line.
# Made by `python -m ondevice.program.stock` from what the Python runtime of executorch {version} registers, with
# the quantized_decomposed operators of executorch.kernels.quantized: both are built from the same kernel lists.
# Added: the operators of extension/llm/custom_ops, which only the Android library links.
# Of backends the Android library has XNNPACK alone. Left out: {recent},
# which builds of 1.3 lack.
"""


def registered_names() -> set[str]:
    """Operators of this machine's runtime, those of quantized_decomposed included."""
    with quiet():
        import executorch.kernels.quantized  # noqa: F401  registers them
        from executorch.runtime import Runtime

        return set(Runtime.get().operator_registry.operator_names)


def make_list() -> str:
    """The text of the list."""
    from importlib.metadata import version

    names = sorted((registered_names() | set(LLAMA)) - set(RECENT))
    head = HEAD.format(version=version("executorch"), recent=", ".join(RECENT))
    return head + "\n".join([*names, BACKEND]) + "\n"


@cache
def stock_names() -> frozenset[str]:
    """Operators and backends of the stock Android runtime, from the committed list."""
    text = (importlib.resources.files("ondevice.program") / STOCK_LIST).read_text()
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def check_stock(names: Iterable[str]) -> None:
    """Refuse operators or backends that the stock runtime cannot run.

    Raises: UserError: naming what is missing.
    """
    missing = sorted(set(names) - stock_names())
    if missing:
        raise UserError(
            f"the program needs {', '.join(missing)}, which the stock Android runtime does not register "
            f"(ondevice/program/{STOCK_LIST}); choose another model or layout"
        )


if __name__ == "__main__":
    target = Path(__file__).with_name(STOCK_LIST)
    atomic_write(target, make_list())
    print(f"wrote {target}")
