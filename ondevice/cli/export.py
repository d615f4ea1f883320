"""Export the compact models of a run as bundles for the stock ExecuTorch runtime.

ondevice export runs/NAME [--layout staircase|csr] [--budget 64KB …] [--label 10pct …] [--output DIR]
    [--methods forward,rank,recommend] [--catalog] [--quantize int8|none] [--top-k 100]
    [--fingerprint-bits 8] [--no-check]
ondevice export runs/NAME --dense fp32,int8,int4 [--catalog] [--output DIR]
ondevice export runs/NEXT_ITEM [--quantize int8|none] [--budget 64KB …] [--label 64KB …] [--catalog] [--top-k 100]
    [--output DIR] [--no-check]

The second writes the programs that torchao and ExecuTorch alone make of the run's dense model, as bundles to
compare with in the demo app: into RUN/dense_bundles. The third is for a run of the next item: its compact models, into
RUN/bundles/64KB, or where there are none the dense one, into RUN/bundles/int8 or fp32.
"""

from __future__ import annotations

import argparse
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run directory")
    parser.add_argument("data", nargs="*", help="where the data are now, if they have moved: data.path=FILE")
    parser.add_argument("--layout", default="staircase", help="staircase (sizes) or csr (positions)")
    parser.add_argument(
        "--budget", action="append", default=[], help="bytes of the whole bundle, 64KB; may be repeated"
    )
    parser.add_argument(
        "--label", action="append", default=[], help="one compact model of the run; may be repeated"
    )
    parser.add_argument("--output", help="where to write (default RUN/bundles/<label or budget>)")
    parser.add_argument(
        "--methods",
        help="comma-separated: forward,rank,recommend (default: what the run says, or all possible)",
    )
    parser.add_argument("--catalog", action="store_true", help="write catalog.bin with titles, for a demo")
    parser.add_argument("--quantize", default="int8", help="int8 or none (float32)")
    parser.add_argument("--top-k", type=int, default=100, help="items that recommend returns")
    parser.add_argument(
        "--fingerprint-bits",
        type=int,
        help="of fingerprints in place of keys, where they are smaller; 0: the keys (default: what the run says)",
    )
    parser.add_argument("--max-batch", type=int, default=1024, help="most rows or items in one call")
    parser.add_argument(
        "--no-check", action="store_true", help="leave out the comparison over the test split"
    )
    parser.add_argument("--dense", help="comma-separated formats of the dense model: fp32,int8,int4,int2")


def run(arguments: argparse.Namespace) -> None:

    from ondevice.run.directory import Run, data_options
    from ondevice.run.effects import is_next_item

    data = data_options(arguments.data)
    wanted = Run(arguments.run, data)  # a wrong directory is said before the exporter is loaded
    if is_next_item(wanted.config):
        _next_item(arguments, data)
        return
    if arguments.dense is not None:
        from ondevice.bench.dense.dense_bundles import export_dense

        names = [name.strip() for name in arguments.dense.split(",") if name.strip()]
        export_dense(
            arguments.run,
            names,
            output=arguments.output,
            catalog=arguments.catalog,
            max_batch=arguments.max_batch,
        )
        return
    from ondevice.program.export import ExportOptions
    from ondevice.program.export_run import export_run, part_lines, table_lines

    methods = None
    if arguments.methods:
        methods = tuple(name.strip() for name in arguments.methods.split(",") if name.strip())
    options = ExportOptions(
        layout=arguments.layout,
        quantization=arguments.quantize,
        methods=methods,
        catalog=arguments.catalog,
        top_k=arguments.top_k,
        max_batch=arguments.max_batch,
        fingerprint_bits=arguments.fingerprint_bits,
    )
    exported = export_run(
        arguments.run,
        budgets=arguments.budget,
        labels=arguments.label,
        output=arguments.output,
        options=options,
        check=not arguments.no_check,
        data=data,
    )
    print("\n".join(table_lines(exported)))
    for each in exported:
        print(f"\n{each.bundle.path}")
        print("\n".join(part_lines(each)))
        if each.parity:
            measured = each.parity
            print(
                f"eager = packed to {measured['eager_vs_packed']:.1e}; "
                f"int8 {measured['packed_vs_int8_sqnr_db']:.1f} dB; "
                f"program = int8 to {measured['int8_vs_pte_max_abs']:.1e}; "
                f"{each.num_delegated} operators delegated, {each.num_portable} portable"
            )


def _next_item(arguments: argparse.Namespace, data: dict[str, Any]) -> None:
    """The bundles of a run of the next item, which has one layout and all of its methods."""
    from ondevice.errors import UserError

    idle = {
        "--layout": arguments.layout != "staircase",
        "--methods": arguments.methods is not None,
        "--fingerprint-bits": arguments.fingerprint_bits is not None,
        "--max-batch": arguments.max_batch != 1024,
        "--dense": arguments.dense is not None,
    }
    given = next((name for name, is_given in idle.items() if is_given), None)
    if given is not None:
        raise UserError(
            f"{given}: has no effect on {arguments.run}, a run of the next item; its bundles are those of its compact "
            "models, or of the dense one in int8, or in fp32 with --quantize none"
        )
    from ondevice.program.next_item_bundles import export_next_item_run

    for made in export_next_item_run(
        arguments.run,
        budgets=arguments.budget,
        labels=arguments.label,
        quantization=arguments.quantize,
        catalog=arguments.catalog,
        top_k=arguments.top_k,
        output=arguments.output,
        check=not arguments.no_check,
        data=data,
    ):
        print(f"{made.bundle.path}: {made.bundle.needed_bytes:,} bytes that a budget counts")
        for name, size in made.bundle.file_bytes().items():
            print(f"{name:>16} {size:>9,}")
        if made.parity:
            measured, rounded = made.parity, made.parity["packed_vs_int8_sqnr_db"]
            print(
                f"eager = packed to {measured['eager_vs_packed']:.1e}; "
                f"{'' if rounded is None else f'int8 {rounded:.1f} dB; '}program = what was lowered to "
                f"{measured['int8_vs_pte_max_abs']:.1e}; the same items after {measured['lengths']} taps\n"
                f"test NDCG@10 {measured['test_ndcg@10_pte']:.4f}, eager {measured['test_ndcg@10_eager']:.4f}; an "
                f"empty history ranks as popularity to {measured['nobody_vs_popularity']:.3f} (rank correlation)\n"
                f"{made.num_delegated} operators delegated, {made.num_portable} portable"
            )
