"""Measure a run's bundles beside every peer: dense programs of three runtimes, and compact models of other runs.

    ondevice peers runs/NAME [--also runs/HASHING …] [--budget 64KB …] [--output peers.json] [--repeats 15]
        [--candidates 1,100,1000] [--baselines fp32,int8,int4,int2] [--cold-starts 3]

Writes the figures as JSON and, beside it, the table (.md) and a picture (.png). Every compact model of the runs that
--also names is a peer: the hashing trick (compact.sizes=hashing), smaller uniform dimensions (compact.sizes=uniform),
pruning by magnitude, PEP's mask (compact.store=positions, stored as CSR). "At its bytes" is the test AUC of our best
bundle that is no larger, less the peer's; "at its AUC" says how much smaller our smallest bundle is that is no worse.

What a runtime needs comes with pip install 'ondevice-recommender[peers]'; one that is not installed is left out and
named. Bytes of a bundle are those of program, vocabulary and manifest; of any other program, of its file for the
largest number of candidates (LiteRT's converter makes a file for each).
"""

from __future__ import annotations

import argparse
import time

from ondevice.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run directory")
    parser.add_argument("--also", nargs="+", default=[], help="runs on the same data, whose models are peers")
    parser.add_argument("--budget", action="append", default=[], help="a bundle of the run; may be repeated")
    parser.add_argument("--output", help="where the figures go (default RUN/peers.json)")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of timing (default 15)")
    parser.add_argument("--cold-starts", type=int, default=3, help="fresh processes per program (default 3)")
    parser.add_argument("--candidates", default="1,100,1000", help="rows of one call (default 1,100,1000)")
    parser.add_argument("--baselines", default="fp32,int8,int4,int2", help="dense programs of ExecuTorch")


def run(arguments: argparse.Namespace) -> None:
    try:
        candidates = tuple(int(part) for part in arguments.candidates.split(","))
    except ValueError:
        raise UserError(
            f"--candidates {arguments.candidates}: give whole numbers separated by commas"
        ) from None
    from ondevice.bench import require_packages

    require_packages()
    from ondevice.bench.peers.compare import measure_peers, text_table
    from ondevice.bench.settings import Settings

    started = time.perf_counter()
    report = measure_peers(
        arguments.run,
        output=arguments.output,
        bundles=arguments.budget,
        also=arguments.also,
        settings=Settings(
            rounds=arguments.repeats,
            cold_starts=arguments.cold_starts,
            candidates=candidates,
            threads=(1,),
            baselines=tuple(arguments.baselines.split(",")),
        ),
        say=lambda text: print(f"{time.perf_counter() - started:6.1f} s  {text}", flush=True),
    )
    print(f"\n{text_table(report)}")
