"""Models of ratings that read histories, beside each other: finished runs on the same data and split.

python benchmarks/histories.py runs/A runs/B … --json FILE

The runs' own figures of the dense model: AUC, and with ``run.rank=true`` how it ranks the catalogue.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.bench.report.report import environment
from ondevice.errors import UserError, run_script
from ondevice.files import atomic_json
from ondevice.run.directory import Run
from ondevice.run.ranked import RANKING

SHOWN = ("parameters", "epochs", "seconds", "valid_auc", "test_auc")
RANKED = ("hr@10", "ndcg@10", "mrr", "coverage@10")


def collected(runs: list[Run]) -> dict[str, Any]:
    """The figures of each run's dense model by the name of its base model.

    Raises: UserError: when data or seeds differ, two runs have the same model, or one was not ranked.
    """
    first, programs = runs[0], {}
    fingerprint = (first.path / "fingerprint").read_text()
    for run in runs:
        metrics = run.metrics
        if (run.path / "fingerprint").read_text() != fingerprint or metrics["seed"] != first.metrics["seed"]:
            raise UserError(f"{run.path}: other data, another split or seed than {first.path}")
        dense = metrics["dense"]
        if RANKING not in dense:
            raise UserError(f"{run.path}: not ranked; continue it with --resume run.rank=true")
        if metrics["model"] in programs:
            raise UserError(f"{run.path}: a second run of {metrics['model']}")
        programs[metrics["model"]] = {key: dense[key] for key in SHOWN} | {
            key: dense[RANKING][key] for key in RANKED
        }
    return {
        "seed": first.metrics["seed"],
        "rows": first.metrics["rows"],
        "contexts": first.metrics["dense"][RANKING]["contexts"],
        "models": programs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="finished run directories")
    parser.add_argument("--json", required=True, help="where to write the figures")
    options = parser.parse_args()
    content = collected([Run(each) for each in options.runs])
    command = " ".join(["python", *sys.argv])
    atomic_json(options.json, {"command": command, "environment": environment(), **content})
    for name, figures in content["models"].items():
        print(f"{name:12}", " ".join(f"{key} {figures[key]:.4f}" for key in SHOWN[3:] + RANKED))


if __name__ == "__main__":
    run_script(main)
