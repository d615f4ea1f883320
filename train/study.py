"""Study hyper-parameters: trials over a search space, judged by validation AUC, stopped early by the median rule.

python train/study.py CONFIG.yaml [section.key=value …] --space SPACE.yaml --trials 50 --output studies/mine
python train/run.py studies/mine/best.yaml

Start it again to continue, or several times, on as many machines, with one --storage to share the trials.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# Threads that spin while they wait crawl (five times slower) as soon as another program wants one of the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.errors import run_script


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="the YAML file that all trials begin with")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the config")
    parser.add_argument(
        "--space", required=True, help="a YAML file: objective, and parameters by section.key"
    )
    parser.add_argument("--trials", type=int, required=True, help="of the whole study, restarts included")
    parser.add_argument("--output", type=Path, required=True, help="folder of the study")
    parser.add_argument("--storage", help="URL of Optuna's storage; by default a SQLite file in the output")
    parser.add_argument("--name", help="of the study in the storage; by default the output's")
    parser.add_argument("--seed", type=int, help="of the sampler")
    arguments = parser.parse_intermixed_args()

    from ondevice.study.space import load_space

    space = load_space(arguments.space)  # a mistake is told before PyTorch is loaded
    from ondevice.study.study import Study, StudyOptions

    options = StudyOptions(
        arguments.output, arguments.trials, arguments.storage, arguments.name, arguments.seed
    )
    found = Study(arguments.config, arguments.overrides, space, options).run()
    counts = ", ".join(f"{count} {state}" for state, count in found["trials"].items() if count)
    print(f"\nbest: valid AUC {found['valid_auc']:.4f}, trial {found['trial']} ({counts})")
    for key, value in found["parameters"].items():
        print(f"  {key} = {value}")
    print(f"plots, trials.csv and best.yaml: {arguments.output}")


if __name__ == "__main__":
    run_script(main)
