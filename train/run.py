"""Train a compact recommender: dense model, search of sizes, retraining.

python train/run.py train/configs/movielens_1m_deepfm_pep.yaml [section.key=value …] [--resume]
torchrun --nproc_per_node=2 train/run.py train/configs/movielens_1m_deepfm_pep.yaml distributed=ddp
python train/run.py --list
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# Threads that spin while they wait crawl (five times slower) as soon as another program wants one of the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Of a process that is gone the others say one line; PyTorch's warnings about its sockets would bury it.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.errors import UserError, run_script


def list_choices() -> None:
    """Print data sets, models and methods, one line each."""
    from ondevice.data import DATASETS
    from ondevice.methods import METHODS
    from ondevice.models import MODELS

    for title, registry in (("data sets", DATASETS), ("models", MODELS), ("methods", METHODS)):
        print(f"{title}:")
        for name, line in registry.describe().items():
            print(f"  {name:16} {line}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", help="a YAML file; train/configs/ has some")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the config")
    parser.add_argument("--resume", action="store_true", help="continue the run in its directory")
    parser.add_argument("--list", action="store_true", help="show data sets, models and methods")
    arguments = parser.parse_intermixed_args()
    if arguments.list:
        list_choices()
        return 0
    if arguments.config is None:
        raise UserError("no config given: name a YAML file (train/configs/ has some), or --list")

    from ondevice.config.file import load

    config = load(arguments.config, arguments.overrides)  # a mistake is told before PyTorch is loaded
    from ondevice.run.prepared import default_folder, describe
    from ondevice.start import make_pipeline

    folder = default_folder(arguments.config, config)
    speaks = os.environ.get("RANK", "0") == "0"  # of the processes of a job the first one does
    if speaks:
        print(f"{describe(config)} -> {folder}", flush=True)
    metrics = make_pipeline(config, folder, resume=arguments.resume).run()
    if speaks:
        print_table(metrics)
        print(f"run directory: {folder}")
    return 0


def print_table(metrics: dict) -> None:  # type: ignore[type-arg]
    """The dense model and each compact one, a line each."""
    print(
        f"\n{'model':12} {'values':>9} {'valid AUC':>10} {'test AUC':>9} {'log loss':>9} {'epochs':>7} {'seconds':>8}"
    )
    rows = [("dense", metrics["dense"], metrics["dense"]["parameters"])]
    rows += [(label, entry, entry["kept_parameters"]) for label, entry in metrics["budgets"].items()]
    for label, entry, values in rows:
        auc, loss = (
            "-" if entry[key] is None else f"{entry[key]:.4f}" for key in ("test_auc", "test_logloss")
        )
        print(
            f"{label:12} {values:>9,} {entry['valid_auc']:>10.4f} {auc:>9} {loss:>9} "
            f"{entry['epochs']:>7} {entry['seconds']:>8.0f}"
        )
    print(f"search: {metrics['search']['seconds']:.0f} s")


if __name__ == "__main__":
    run_script(main)
