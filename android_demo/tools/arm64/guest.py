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
NUM_BUCKETS = 32  # of time gaps


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
    _, item = columns(manifest)
    cases = [case["ids"] for case in manifest["golden"]]
    rows = [cases[n % len(cases)] for n in range(num_items)]
    if "rank" in manifest["methods"]:
        items = [[row[i] for i in item] for row in rows]
        return "rank", (torch.tensor([context_of(manifest, manifest["golden"][0])]), torch.tensor(items))
    context, _ = columns(manifest)
    whole = [[(cases[0] if i in context else row)[i] for i in range(len(rows[0]))] for row in rows]
    return "forward", (torch.tensor(whole),)


def columns(manifest):
    """Where in a row the slots of the context's fields are, and those of the item's."""
    sides = []
    for field in manifest["schema"]["fields"]:
        sides += [field.get("side") == "item"] * field.get(
            "last" if field.get("kind") == "history" else "slots", 1
        )
    return [i for i, item in enumerate(sides) if not item], [i for i, item in enumerate(sides) if item]


def context_of(manifest, case):
    """What ``rank`` takes once: rows of the context's fields and, of a model that reads time gaps, their buckets."""
    return [case["ids"][i] for i in columns(manifest)[0]] + case.get("gaps", [])


def is_next_item(manifest):
    return "items" in manifest["methods"]


def recommending(manifest):
    """``recommend`` after a full history, with all buckets of gaps in turn, which nothing else is left out with."""
    width = manifest["methods"]["recommend"]["inputs"][0]["shape"][1]
    last = len(columns(manifest)[0])
    context = [n % manifest["num_rows"] for n in range(last)] + [n % NUM_BUCKETS for n in range(width - last)]
    return "recommend", (torch.tensor([context]), torch.tensor([[manifest["num_rows"]]]))


def score(program, manifest, case, vectors):
    """Of one golden case: a program of the next item has no ``forward``."""
    if "forward" in manifest["methods"]:
        return program.run_method("forward", (torch.tensor([case["ids"]]),))[0].item()
    item = [case["ids"][i] for i in columns(manifest)[1]]
    parts = (torch.tensor([context_of(manifest, case)]), torch.tensor([item]))
    return program.run_method("rank", (*parts, *vectors))[0].item()


def main():
    folder, candidates = sys.argv[1], [int(n) for n in sys.argv[2].split(",") if n]
    with open(folder + "/manifest.json", encoding="utf-8") as file:
        manifest = json.load(file)
    load_quantized_kernels()
    program = _portable_lib._load_for_executorch(folder + "/model.pte")
    # a copy: the next call writes into the same memory
    vectors = [program.run_method("items", ())[0].clone()] if is_next_item(manifest) else []
    golden = [score(program, manifest, case, vectors) for case in manifest["golden"]]
    system_call = ctypes.CDLL(None).syscall
    gc.disable()
    calls = [ranking(manifest, num_items) for num_items in candidates]
    if candidates and is_next_item(manifest):
        calls.append(recommending(manifest))
    calls = [(method, (*inputs, *vectors)) for method, inputs in calls]
    if candidates and vectors:
        calls.append(("items", ()))
    for method, inputs in calls:
        for warmup in range(REPEATS + 2):
            if warmup >= 2:
                system_call(MARK, 1)
            program.run_method(method, inputs)
            if warmup >= 2:
                system_call(MARK, 2)
    print(json.dumps({"machine": platform.machine(), "golden": golden}))


if __name__ == "__main__":
    main()
