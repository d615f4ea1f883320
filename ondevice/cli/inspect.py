"""Show what a run directory or a bundle holds: bytes by part, fields, endpoints, budgets, metrics.

ondevice inspect runs/NAME
ondevice inspect runs/NAME/bundles/64KB

Every file of a bundle is verified; a run that is under way is shown as far as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ondevice.program.bundle import Bundle
    from ondevice.run.directory import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="RUN|BUNDLE", type=Path, help="a run directory, or a bundle's folder"
    )


def run(arguments: argparse.Namespace) -> None:
    from ondevice.bundle.manifest import MANIFEST

    folder = arguments.folder
    if (folder / MANIFEST).is_file():
        from ondevice.program.bundle import load_bundle

        print("\n".join(bundle_lines(load_bundle(folder))))
    else:
        from ondevice.run.directory import Run

        print("\n".join(run_lines(Run(folder))))


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of columns: whole numbers end at the right, anything else begins at the left."""
    numbers = [all(type(row[column]) is int for row in rows) for column in range(len(head))]
    texts = [[*head], *([f"{cell:,}" if type(cell) is int else str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numbers, strict=True)
        ).rstrip()
        for row in texts
    ]


def bundle_lines(bundle: Bundle) -> list[str]:
    """What a bundle holds."""
    manifest, total = bundle.manifest, bundle.total_bytes
    about = f"{manifest['model']} · {manifest['method']} · {manifest['layout']} · {bundle.num_rows:,} rows"
    parts = [(name, size, f"{size / total:.0%}") for name, size in _parts(bundle)]
    fields = [
        (field.name, field.side, field.kind, bundle.vocabulary.num_keys([place]))
        for place, field in enumerate(bundle.schema.fields)
    ]
    endpoints = [
        (name, _shapes(entry["inputs"]), _shapes(entry["outputs"]), _most(entry))
        for name, entry in manifest["methods"].items()
    ]
    sizes = [
        f"{name.replace('_', ' ')}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in manifest["sizes"].items()
    ]
    metrics = [(name, f"{value:.4f}") for name, value in manifest["metrics"].items()]
    return [
        f"bundle {manifest['name']}: {about}",
        "",
        *table(("part", "bytes", "share"), [*parts, ("whole bundle", total, "100%")]),
        "",
        *table(("field", "side", "kind", "keys"), fields),
        "",
        *table(("endpoint", "takes", "returns", "at most"), endpoints),
        "",
        f"rows: {'; '.join(sizes)}",
        *(["", *table(("metric", "value"), metrics)] if metrics else []),
        "",
        f"needs {len(manifest['ops'])} operators and {', '.join(manifest['backends']) or 'no backend'}; made with "
        + ", ".join(f"{name} {version}" for name, version in manifest["versions"].items()),
    ]


def _parts(bundle: Bundle) -> Iterator[tuple[str, int]]:
    """Files, and below the program what is in it where the runtime, which knows how to read that, is installed."""
    from ondevice.bundle.manifest import PROGRAM
    from ondevice.program.targets import shipped

    target = shipped()
    for name, size in bundle.file_bytes().items():
        yield name, size
        if name == PROGRAM and not target.missing():
            rows = bundle.manifest["sizes"]["first_order_rows"]
            program = target.inspect(bundle.contents[PROGRAM], name, first_order_rows=rows)
            yield from ((f"  {part.replace('_', ' ')}", each) for part, each in program.parts.items() if each)


def _shapes(tensors: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{each['name']} ({', '.join(map(str, each['shape']))})" for each in tensors)


def _most(entry: dict[str, Any]) -> str:
    limits = {"max_batch": "rows", "max_items": "items", "k": "items"}
    return ", ".join(f"{entry[key]:,} {what}" for key, what in limits.items() if key in entry)


def run_lines(run: Run) -> list[str]:
    """What a run directory holds."""
    from ondevice.cli.train import table_lines
    from ondevice.run.directory import METRICS
    from ondevice.run.prepared import describe

    finished = (run.path / METRICS).exists()
    state = "finished" if finished else "under way; continue it with --resume"
    lines = [f"run {run.path}: {describe(run.config)}; {state}", ""]
    parts = [
        (path.name + ("/" if path.is_dir() else ""), _bytes(path)) for path in sorted(run.path.iterdir())
    ]
    lines += table(("part", "bytes"), [*parts, ("whole run", _bytes(run.path))])
    if (run.path / "schema.json").exists():
        offsets = run.vocabulary.field_offsets
        fields = [
            (field.name, field.side, field.kind, int(offsets[place + 1] - offsets[place]))
            for place, field in enumerate(run.schema.fields)
        ]
        lines += ["", *table(("field", "side", "kind", "ids"), fields)]
    if finished:
        lines += ["", *table_lines(run.metrics)]
    bundles = sorted(path.parent for path in run.path.glob("bundles/*/manifest.json"))
    return lines + (["", *_bundle_table(bundles)] if bundles else [])


def _bundle_table(folders: Sequence[Path]) -> list[str]:
    from ondevice.bundle.manifest import CATALOG, MANIFEST, PROGRAM, VOCABULARY
    from ondevice.program.bundle import load_bundle

    rows = []
    for folder in folders:
        bundle = load_bundle(folder)
        sizes = bundle.file_bytes()
        named = [sizes.get(name, 0) for name in (PROGRAM, VOCABULARY, MANIFEST, CATALOG)]
        rows.append((folder.name, bundle.needed_bytes, *named, ", ".join(bundle.manifest["methods"])))
    return table(("bundle", "bytes", PROGRAM, VOCABULARY, MANIFEST, "titles", "endpoints"), rows)


def _bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
