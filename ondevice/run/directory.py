"""The run directory: everything a training leaves for export, benchmark and resume."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ondevice.config.file import from_dict, override_value, plain_values
from ondevice.config.moved import OLD_SECTIONS
from ondevice.config.sections import Config
from ondevice.data import Dataset, Schema, Vocabulary, load_dataset
from ondevice.data.kept import keep_ids, keep_keys
from ondevice.data.store import open_store
from ondevice.errors import DamagedFile, UserError
from ondevice.forms.table import TableInfo, table_info
from ondevice.plugins import check_loaded
from ondevice.recommender import Recommender
from ondevice.training.checkpoint import load_recommender

CONFIG = "config.yaml"
METRICS = "metrics.json"
EXCERPT = "data"  # all of the data set but its rows
TABLE = "table.schema.yaml"  # of a run on a table: a copy of the file that explains its columns
KEPT = "kept.safetensors"  # of a run with sharded tables: the ids that its compact models know


def read_config(folder: Path) -> Config:
    """The resolved configuration of a run directory.

    Raises: UserError: when the folder is no run directory, or one of an earlier version.
    """
    import yaml

    try:
        values = yaml.safe_load((folder / CONFIG).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder}: no run directory ({CONFIG} is missing); make one with ondevice train CONFIG.yaml"
        ) from None
    except yaml.YAMLError as error:
        raise DamagedFile(f"{folder / CONFIG}: not YAML: {error}") from None
    if isinstance(values, dict) and any(section in values for section in OLD_SECTIONS):
        raise UserError(
            f"{folder}: written by an earlier version of ondevice, whose {CONFIG} had other sections; train it again"
        )
    return from_dict(values)


class Run:
    """A finished (or still growing) run directory.

    Args:
        path: the directory that ``train/run.py`` wrote.
        data: options of the data set that say where the data are now (``path``, ``folder``).

    Raises: UserError: when it is no run directory.
    """

    def __init__(self, path: str | Path, data: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.config = read_config(self.path)
        check_loaded(self.config.run.plugins, str(self.path))
        self.data = plain_values(dict(data or {}))

    @property
    def schema(self) -> Schema:
        """The fitted schema."""
        return Schema.from_dict(json.loads((self.path / "schema.json").read_text()))

    @property
    def vocabulary(self) -> Vocabulary:
        if not hasattr(self, "_vocabulary"):
            whole = Vocabulary.load(self.path / "vocabulary")
            self._vocabulary = whole if self.kept is None else keep_keys(whole, self.kept)
        return self._vocabulary

    @property
    def kept(self) -> np.ndarray | None:
        """The ids that compact models know, ascending; None for all of them."""
        if not (self.path / KEPT).exists():
            return None
        ids: np.ndarray = load_file(self.path / KEPT)["ids"].numpy()
        return ids

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json.

        Raises: UserError: when the training has not ended.
        """
        try:
            content: dict[str, Any] = json.loads((self.path / METRICS).read_text())
        except FileNotFoundError:
            raise UserError(
                f"{self.path}: the training has not finished ({METRICS} is missing); continue it with --resume"
            ) from None
        return content

    def budgets(self) -> list[str]:
        """Labels of the compact models, the largest first."""
        folder = self.path / "budgets"
        labels = (
            [p.name for p in folder.iterdir() if (p / "model.safetensors").exists()]
            if folder.is_dir()
            else []
        )
        return sorted(labels, key=lambda label: -self._kept(label))

    def _kept(self, label: str) -> int:
        return self.compact(label).num_kept()

    def _info(self) -> TableInfo:
        offsets = self.vocabulary.field_offsets
        return table_info(offsets, torch.zeros(int(offsets[-1]), dtype=torch.int64), slots=self.schema.slots)

    def compact(self, label: str) -> Recommender:
        """The compact model of one budget, in evaluation mode: see also `ondevice.run.elastic.compact_model`."""
        folder = self.path / "budgets" / label
        if not folder.is_dir():
            raise UserError(
                f"{self.path}: no compact model '{label}'; there are: {', '.join(self.budgets()) or 'none'}"
            )
        return load_recommender(folder, self._info())

    def dense(self, name: str = "dense") -> Recommender:
        """The dense model, in evaluation mode, or a further one that was trained as a teacher (``dense+1``).

        Raises: UserError: as `dense_folder` does.
        """
        return load_recommender(self.dense_folder(name), self._info())

    def dense_folder(self, name: str = "dense") -> Path:
        """Where a dense model is.

        Raises: UserError: when there is none, or its tables are in the files of several processes.
        """
        folder = self.path / name
        if (folder / "rows").is_dir():
            raise UserError(
                f"{self.path}: the dense model was trained with distributed=sharded, and its tables may not fit here"
            )
        if not folder.is_dir():
            there = sorted(path.name for path in self.path.glob("dense*"))
            raise UserError(f"{folder}: no dense model of that name; there are: {', '.join(there) or 'none'}")
        return folder

    def dataset(self, rows: bool = True) -> Dataset:
        """The encoded data set, from the cache or prepared again, as compact models see it.

        Args:
            rows: whether its rows are needed; without them, and where the data cannot be found, the run's own
                excerpt is as good.

        Raises: UserError: when it is no longer the data that the run was trained on.
        """
        options = {**self.config.data.options, **self.data}
        if "schema" in options and "schema" not in self.data and (self.path / TABLE).exists():
            options["schema"] = str(self.path / TABLE)
        recorded = (self.path / "fingerprint").read_text().strip()
        dataset: Dataset | None
        try:
            dataset = load_dataset(self.config.data.name, **options)
            if dataset.fingerprint != recorded:
                raise UserError(
                    f"{self.path}: trained on other data (fingerprint {recorded[:12]}, now "
                    f"{dataset.fingerprint[:12]})"
                )
        except UserError as error:
            dataset = None
            if not rows and not self.data:
                dataset = open_store(self.path / EXCERPT, recorded, self.path / "vocabulary")
            if dataset is None:
                place = "folder" if "folder" in options else "path"
                raise UserError(f"{error}; say where they are now with data.{place}=…") from None
        return dataset if self.kept is None else keep_ids(dataset, self.kept)


def data_options(overrides: Sequence[str]) -> dict[str, Any]:
    """Options of a data set written ``data.path=FILE``. Raises UserError for anything else."""
    options = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        section, _, name = key.partition(".")
        if not separator or section != "data" or not name:
            raise UserError(f"'{override}': write where the data are now as data.path=FILE")
        options[name] = override_value(override, name, text)
    return options
