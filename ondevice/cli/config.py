"""Print the recipes, and every key of a configuration with its default and what it means.

ondevice config
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # it has none


def run(arguments: argparse.Namespace) -> None:
    from ondevice.config.describe import lines

    print("\n".join(lines()))
