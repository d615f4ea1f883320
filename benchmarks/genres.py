"""A field of several values beside a key for each combination of them: test AUC and bytes of MovieLens' field sets.

python benchmarks/genres.py CONFIG.yaml [section.key=value …] --json FILE [--seeds 0 1 2] [--most N]

Trains and exports the config with ``data.fields=full`` and ``rich`` for each seed, one after the other, and writes the
file after each; what is in it already is not trained again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.config.file import load
from ondevice.errors import UserError, run_script
from ondevice.files import atomic_json

FIELD_SETS = ("full", "rich")


def measure(config: str, overrides: list[str], fields: str, seed: int, folder: Path) -> dict[str, float]:
    """Train and export one run: AUC of the dense model and of the shipped program on the test split, and bytes."""
    from ondevice.program.export_run import export_run
    from ondevice.start import make_pipeline

    run = folder / f"{fields}-{seed}"
    changes = [*overrides, f"data.fields={fields}", f"run.seed={seed}", f"run.output={run}"]
    metrics = make_pipeline(load(config, changes), run, resume=(run / "config.yaml").exists()).run()
    (exported,) = export_run(run)
    parts = exported.byte_parts()
    return {
        "dense_test_auc": metrics["dense"]["test_auc"],
        "test_auc": exported.parity["test_auc_pte"],
        "bytes": exported.bundle.total_bytes,
        **{
            f"{name}_bytes": parts[name]
            for name in ("embeddings", "program", "vocabulary.bin", "manifest.json")
        },
    }


def summary(runs: dict[str, dict[str, float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and standard deviation of each figure by field set, of runs named ``SET-SEED``."""
    by_run: dict[str, dict[str, dict[str, float]]] = {}
    for fields in dict.fromkeys(name.rsplit("-", 1)[0] for name in runs):
        of_fields = [figures for name, figures in runs.items() if name.rsplit("-", 1)[0] == fields]
        by_run[fields] = {
            key: {
                "mean": statistics.fmean(each[key] for each in of_fields),
                "std": statistics.stdev(each[key] for each in of_fields) if len(of_fields) > 1 else 0.0,
            }
            for key in of_fields[0]
        }
    return by_run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--most", type=int, default=100, help="end after so many runs; call again for the others"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/genres"))
    options = parser.parse_intermixed_args()
    asked = {"config": options.config, "overrides": options.overrides}
    content: dict[str, Any] = {**asked, "runs": {}}
    with contextlib.suppress(FileNotFoundError):
        content = json.loads(options.json.read_text())
    if {key: content[key] for key in asked} != asked:
        raise UserError(f"{options.json}: of another config; name another --json file, or remove it")
    wanted = [(fields, seed) for seed in options.seeds for fields in FIELD_SETS]
    left = [(fields, seed) for fields, seed in wanted if f"{fields}-{seed}" not in content["runs"]]
    for fields, seed in left[: options.most]:
        figures = measure(options.config, options.overrides, fields, seed, options.runs)
        content["runs"][f"{fields}-{seed}"] = figures
        content["summary"] = summary(content["runs"])
        atomic_json(options.json, content)
        print(fields, seed, figures, flush=True)


if __name__ == "__main__":
    run_script(main)
