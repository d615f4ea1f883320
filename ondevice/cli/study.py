"""Study hyper-parameters: trials over a search space, judged by validation AUC, stopped early by the median rule.

ondevice study CONFIG.yaml [section.key=value …] --space SPACE.yaml --trials 50 --output studies/mine
ondevice train studies/mine/best.yaml

Start it again to continue, or several times, on as many machines, with one --storage to share the trials.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ondevice.cli.configs import find_config
from ondevice.cli.train import set_environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", help="the YAML file that all trials begin with, or the name of one that comes along"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the config")
    parser.add_argument(
        "--space",
        required=True,
        help="a YAML file or name likewise: objective, and parameters by section.key",
    )
    parser.add_argument("--trials", type=int, required=True, help="of the whole study, restarts included")
    parser.add_argument("--output", type=Path, required=True, help="folder of the study")
    parser.add_argument("--storage", help="URL of Optuna's storage; by default a SQLite file in the output")
    parser.add_argument("--name", help="of the study in the storage; by default the output's")
    parser.add_argument("--seed", type=int, help="of the sampler")


def run(arguments: argparse.Namespace) -> None:
    set_environment()
    from ondevice.study.space import load_space

    space = load_space(find_config(arguments.space))  # a mistake is told before PyTorch is loaded
    from ondevice.study.study import Study, StudyOptions

    options = StudyOptions(
        arguments.output, arguments.trials, arguments.storage, arguments.name, arguments.seed
    )
    result = Study(find_config(arguments.config), arguments.overrides, space, options).run()
    counts = ", ".join(f"{count} {state}" for state, count in result["trials"].items() if count)
    print(f"\nbest: valid AUC {result['valid_auc']:.4f}, trial {result['trial']} ({counts})")
    for key, value in result["parameters"].items():
        print(f"  {key} = {value}")
    print(f"plots, trials.csv and best.yaml: {arguments.output}")
