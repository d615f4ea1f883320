"""Methods of sizes at the same budgets: same dense model, teacher, store and schedule; AUC and bytes of each.

python benchmarks/size_methods.py CONFIG.yaml [section.key=value …] --json FILE [--seeds 0 1 2] [--cases NAME …]
    [--budgets 64KB …] [--runs FOLDER]

All cases of a seed borrow one dense model, which is trained first. The file is written after each run; what is in it
already is not trained again. With ``run.test=false`` nothing is exported and the test split not read.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.config.budget import budget_label
from ondevice.config.file import load
from ondevice.config.stores import Codes
from ondevice.errors import UserError, run_script
from ondevice.files import atomic_json

CASES = {
    "uniform": ["compact.sizes=uniform"],
    **{
        f"uniform of {count} occurrences": ["compact.sizes=uniform", f"compact.sizes.min_count={count}"]
        for count in (10, 30, 100)
    },
    "frequency": ["compact.sizes=frequency", "compact.sizes.exponent=0.4"],
    "pep budget": ["compact.sizes=pep", "compact.sizes.regime=budget"],
    "saliency": ["compact.sizes=saliency"],
    "magnitude": ["compact.sizes=magnitude"],
    "as configured": [],
    "pep loss": [
        "compact.sizes=pep",
        "compact.sizes.regime=loss",
        "compact.sizes.epochs=1",
        "compact.sizes.learning_rate=1e-5",
        "compact.sizes.threshold_learning_rate=1e-3",
    ],
}
"""What is compared: options of `compact`, by name."""


def measure(
    config: str, overrides: list[str], budgets: list[str], case: str, seed: int, folder: Path
) -> dict[str, Any]:
    """Train a case's compact models; for each budget AUC and bytes, of the shipped program where it is exported."""
    from ondevice.bench.dense.careful import BorrowingPipeline
    from ondevice.program.export_run import export_run
    from ondevice.run.directory import Run
    from ondevice.run.pipeline import Pipeline

    dense, path = folder / f"dense-{seed}", folder / f"{case.replace(' ', '-')}-{seed}"
    if not (dense / "metrics.json").exists():
        changes = [
            "compact.sizes=uniform",
            "compact.budgets=[100%]",
            "compact.train.epochs=1",
            f"run.seed={seed}",
        ]
        Pipeline(load(config, [*overrides, *changes]), dense, resume=True).run()
    changes = [f"compact.budgets=[{','.join(budgets)}]", f"run.seed={seed}"]
    if case.startswith("uniform"):  # of any dimension that the store can have
        store = load(config, overrides).compact.store
        changes.append(f"compact.store.size_step={store.code_dims if isinstance(store, Codes) else 1}")
    resolved = load(config, [*overrides, *CASES[case], *changes])
    metrics = BorrowingPipeline(resolved, path, Run(dense)).run()
    labels = [budget_label(budget) for budget in budgets]
    exported = {}
    if resolved.run.test:
        exported = dict(zip(labels, export_run(path, labels=labels), strict=True))
    figures: dict[str, Any] = {}
    for label in labels:
        entry = metrics["budgets"][label]
        figures[label] = {
            "valid_auc": entry["valid_auc"],
            "values": entry["kept_parameters"],
            "seconds": entry["seconds"] + metrics["search"]["seconds"],
        }
        if label in exported:
            figures[label] |= {
                "test_auc": exported[label].parity["test_auc_pte"],
                "bytes": exported[label].bundle.total_bytes,
            }
    return figures


def summary(runs: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and standard deviation of each figure by case and budget, of runs named ``CASE-SEED``."""
    collected: dict[str, dict[str, list[float]]] = {}
    for name, figures in runs.items():
        for label, values in figures.items():
            of_program = collected.setdefault(f"{name.rsplit('-', 1)[0]} {label}", {})
            for key, value in values.items():
                of_program.setdefault(key, []).append(value)
    return {
        program: {
            key: {
                "mean": statistics.fmean(values),
                **({"std": statistics.stdev(values)} if len(values) > 1 else {}),
            }
            for key, values in keys.items()
        }
        for program, keys in collected.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budgets", nargs="+", default=["32KB", "64KB", "128KB"])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--runs", type=Path, default=Path("runs/size_methods"))
    options = parser.parse_intermixed_args()
    asked = {"config": options.config, "overrides": options.overrides}
    budgets = {budget: budget_label(budget) for budget in options.budgets}
    content: dict[str, Any] = {**asked, "runs": {}}
    with contextlib.suppress(FileNotFoundError):
        content = json.loads(options.json.read_text())
    if {key: content[key] for key in asked} != asked:
        raise UserError(f"{options.json}: of another config; name another --json file, or remove it")
    for seed, case in itertools.product(options.seeds, options.cases):
        runs = content["runs"].setdefault(f"{case}-{seed}", {})
        left = [budget for budget, label in budgets.items() if label not in runs]
        if left:
            runs |= measure(options.config, options.overrides, left, case, seed, options.runs)
            content["programs"] = summary(content["runs"])
            atomic_json(options.json, content)
            print(case, seed, runs, flush=True)


if __name__ == "__main__":
    run_script(main)
