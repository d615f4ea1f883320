"""ondevice: recommenders that learn how many dimensions each feature deserves, and ship to phones.

```python
run = ondevice.train({"data": {"name": "movielens_1m"}, …}, "runs/mine")
bundles = ondevice.export(run)
ondevice.load_bundle(bundles[0]).recommend({"user": 42, "age": 25})
```
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.version import __version__ as __version__

if TYPE_CHECKING:
    from ondevice.program.bundle import Bundle
    from ondevice.run.directory import Run


def train(
    config: Mapping[str, Any] | str | Path, output: str | Path, *, data: Any = None, resume: bool = False
) -> Run:
    """Train a dense model, learn sizes and retrain each budget, as ``train/run.py`` does.

    Args:
        config: sections of keys and values as in ``train/configs``, or a YAML file.
        output: the run directory.
        data: a pandas, Polars or Arrow table in place of ``data.path``, or a mapping of ``train``, ``valid`` and
            ``test`` to one each.
        resume: continue what is in ``output``; phases already done are not done again.

    Raises: UserError: when the configuration is wrong or the directory is in use.
    """
    from ondevice.config.file import from_dict, load
    from ondevice.run.directory import Run
    from ondevice.start import make_pipeline

    settings = from_dict(config) if isinstance(config, Mapping) else load(config)
    if data is not None:
        from ondevice.config.sections import Choice
        from ondevice.data.frames import kept_table

        options = {**settings.data.options, "path": kept_table(data)}
        settings = dataclasses.replace(settings, data=Choice("table", options))
    make_pipeline(settings, output, resume=resume).run()
    return Run(output)


def export(
    run: Run | str | Path,
    *,
    layout: str = "staircase",
    budgets: Sequence[str] = (),
    output: str | Path | None = None,
    data: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Export the compact models of a run as bundles, as ``export/to_pte.py`` does.

    Args:
        run: a run, or its directory.
        layout: ``staircase`` (sizes) or ``csr`` (positions).
        budgets: bytes that a whole bundle may take (``64KB``), each met by the largest model that fits; none
            for every model of the run.
        output: folder of the bundles; None for the run's own.
        data: where the data are now, if they have moved (``{"path": …}``); an export needs them only to compare
            the programs with the model over the test split.

    Returns: the folders of the bundles.

    Raises: UserError: when nothing fits a budget.
    """
    from ondevice.program.export import ExportOptions  # needs ExecuTorch, training does not
    from ondevice.program.export_run import export_run
    from ondevice.run.directory import Run

    path = run.path if isinstance(run, Run) else run
    exported = export_run(
        path, budgets=budgets, output=output, options=ExportOptions(layout=layout), data=data
    )
    return [each.bundle.path for each in exported]


def load_bundle(path: str | Path) -> Bundle:
    """Open and verify an exported bundle: see `ondevice.program.bundle.load_bundle`."""
    from ondevice.program.bundle import load_bundle as load

    return load(path)
