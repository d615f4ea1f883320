"""Train a compact recommender: dense model, search of sizes, retraining.

ondevice train CONFIG.yaml|NAME [section.key=value …] [--resume]
ondevice train movielens_1m_deepfm_pep data.max_rows=100000
ondevice train --list

On several GPUs: torchrun --nproc_per_node=2 -m ondevice train CONFIG.yaml distributed=ddp (or train/run.py).
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from ondevice.cli import list as listing
from ondevice.cli.configs import find_config
from ondevice.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", nargs="?", help="a YAML file, or the name of a config that comes along (ondevice list)"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the config")
    parser.add_argument("--resume", action="store_true", help="continue the run in its directory")
    parser.add_argument("--list", action="store_true", help="show data sets, models and methods")


def set_environment() -> None:
    """What PyTorch reads when it is loaded."""
    # Threads that spin while they wait crawl (five times slower) as soon as another program wants one of the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Of a process that is gone the others say one line; PyTorch's warnings about its sockets would bury it.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def run(arguments: argparse.Namespace) -> None:
    set_environment()
    if arguments.list:
        listing.run(arguments)
        return
    if arguments.config is None:
        raise UserError("no config given: name a YAML file (train/configs/ has some), or --list")

    from ondevice.config.file import load

    path = find_config(arguments.config)
    config = load(path, arguments.overrides)  # a mistake is told before PyTorch is loaded
    from ondevice.run.prepared import default_folder, describe
    from ondevice.start import make_pipeline

    folder = default_folder(path, config)
    speaks = os.environ.get("RANK", "0") == "0"  # of the processes of a job the first one does
    if speaks:
        print(f"{describe(config)} -> {folder}", flush=True)
    metrics = make_pipeline(config, folder, resume=arguments.resume).run()
    if speaks:
        print("\n" + "\n".join(table_lines(metrics)))
        print(f"run directory: {folder}")


def table_lines(metrics: dict[str, Any]) -> list[str]:
    """The dense model and each compact one, a line each; of the next item all users and each group."""
    from ondevice.run import next_item, ranked

    if next_item.is_next_item_run(metrics):
        return next_item.table_lines(metrics)
    head = ("values", "valid AUC", "test AUC", "log loss", "epochs", "seconds")
    lines = ["{:12} {:>9} {:>10} {:>9} {:>9} {:>7} {:>8}".format("model", *head)]
    rows = [("dense", metrics["dense"], metrics["dense"]["parameters"])]
    rows += [(label, entry, entry["kept_parameters"]) for label, entry in metrics["budgets"].items()]
    for label, entry, values in rows:
        auc, loss = (
            "-" if entry[key] is None else f"{entry[key]:.4f}" for key in ("test_auc", "test_logloss")
        )
        lines.append(
            f"{label:12} {values:>9,} {entry['valid_auc']:>10.4f} {auc:>9} {loss:>9} "
            f"{entry['epochs']:>7} {entry['seconds']:>8.0f}"
        )
    lines += ranked.table_lines([(label, entry) for label, entry, _ in rows])
    return [*lines, f"search: {metrics['search']['seconds']:.0f} s"]
