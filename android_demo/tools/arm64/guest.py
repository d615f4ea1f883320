"""What runs in the emulated arm64 Python: a bundle's golden cases, and rankings between marks.

    python guest.py BUNDLE CANDIDATES,CANDIDATES,...

Prints one JSON object. The runtime is imported past executorch's package, whose exporter is not needed here,
and torch without its distributed part, which wants CUDA's libraries.
"""

import ctypes
import gc
import json
import platform
import sys
import types

MARK = 4242
REPEATS = 3


class WithoutDistributed:
    """Takes torch's entry points of distributed training away before torch looks for them."""

    def find_spec(self, name, path=None, target=None):
        if name == "torch.distributed":
            for entry in ("_c10d_init", "_rpc_init"):
                if hasattr(sys.modules["torch._C"], entry):
                    delattr(sys.modules["torch._C"], entry)
        return None


sys.meta_path.insert(0, WithoutDistributed())
exporter = types.ModuleType("executorch.exir")
exporter.__path__ = []
sys.modules["executorch.exir"] = exporter

import torch
from executorch.extension.pybindings import _portable_lib


def load_quantized_kernels():
    folder = next(p for p in sys.path if p.endswith("site"))
    torch.ops.load_library(f"{folder}/executorch/kernels/quantized/libquantized_ops_aot_lib.so")


def ranking(manifest, num_items):
    """The method that ranks items in one context, and its inputs: golden contexts and items, the items over again.

    A program without ``rank`` gets whole rows.
    """
    fields = manifest["schema"]["fields"]
    context = [i for i, field in enumerate(fields) if field.get("side") != "item"]
    item = [i for i, field in enumerate(fields) if field.get("side") == "item"]
    cases = [case["ids"] for case in manifest["golden"]]
    rows = [cases[n % len(cases)] for n in range(num_items)]
    if "rank" in manifest["methods"]:
        items = [[row[i] for i in item] for row in rows]
        return "rank", (torch.tensor([[cases[0][i] for i in context]]), torch.tensor(items))
    whole = [[(cases[0] if i in context else row)[i] for i in range(len(fields))] for row in rows]
    return "forward", (torch.tensor(whole),)


def main():
    folder, candidates = sys.argv[1], [int(n) for n in sys.argv[2].split(",") if n]
    with open(folder + "/manifest.json", encoding="utf-8") as file:
        manifest = json.load(file)
    load_quantized_kernels()
    program = _portable_lib._load_for_executorch(folder + "/model.pte")
    golden = [
        program.run_method("forward", (torch.tensor([case["ids"]]),))[0].item() for case in manifest["golden"]
    ]
    system_call = ctypes.CDLL(None).syscall
    gc.disable()
    for num_items in candidates:
        method, inputs = ranking(manifest, num_items)
        for warmup in range(REPEATS + 2):
            if warmup >= 2:
                system_call(MARK, 1)
            program.run_method(method, inputs)
            if warmup >= 2:
                system_call(MARK, 2)
    print(json.dumps({"machine": platform.machine(), "golden": golden}))


if __name__ == "__main__":
    main()
