"""What a run writes into its directory while it goes on: by one process, for all of them to read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_safetensors
from torch import Tensor

from ondevice.config.sections import Config
from ondevice.data import Dataset
from ondevice.data.spec import TableSpec
from ondevice.data.store import write_excerpt
from ondevice.errors import UserError
from ondevice.files import atomic_json, atomic_write
from ondevice.recommender import Recommender
from ondevice.run.directory import CONFIG, EXCERPT, METRICS, TABLE
from ondevice.run.preflight import check_fingerprint
from ondevice.training.checkpoint import save_recommender
from ondevice.training.processes import Processes


class RunFiles:
    """The files of a run under way, and which of its phases are done.

    Args:
        folder: the run directory, the same for all processes.
        processes: of which the first writes; the others go on when it has.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder, self.processes = folder, processes
        path = folder / "progress.json"
        self.state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"history": {}}

    def claim(self, config: Config, dataset: Dataset) -> None:
        """Write what the run begins with; before that, nothing of a wrong configuration is left behind.

        Raises: UserError: when the folder cannot be written, or holds a run on other data.
        """
        self.processes.only_first(lambda: self._claim(config, dataset))
        if not (self.folder / "fingerprint").exists():
            raise UserError(
                f"{self.folder}: this machine does not see what the first one wrote; all machines of a job need one "
                "shared folder: name it with run.output=DIR"
            )

    def _claim(self, config: Config, dataset: Dataset) -> None:
        import yaml

        check_fingerprint(self.folder / "fingerprint", dataset.fingerprint)
        try:
            atomic_write(self.folder / CONFIG, yaml.safe_dump(config.to_dict(), sort_keys=False))
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written ({error}); name another run.output=DIR"
            ) from None
        atomic_write(self.folder / "fingerprint", dataset.fingerprint + "\n")
        dataset.vocabulary.save(self.folder / "vocabulary")
        atomic_json(self.folder / "schema.json", dataset.schema.to_dict())
        table = config.data.options.get("schema")
        if table is not None:
            spec = TableSpec.from_yaml(table, config.data.options.get("tables"))
            atomic_write(self.folder / TABLE, yaml.safe_dump(spec.to_dict(), sort_keys=False))

    def remember(self, **entries: Any) -> None:
        """Note what is done."""
        self.state.update(entries)
        self.processes.only_first(lambda: atomic_json(self.folder / "progress.json", self.state))

    def write(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Write tensors to a file."""
        self.processes.only_first(lambda: atomic_write(self.folder / name, save_safetensors(tensors)))

    def save(self, name: str, recommender: Recommender, model: str, options: dict[str, Any]) -> None:
        """Write a trained recommender to a folder."""
        self.processes.only_first(lambda: save_recommender(self.folder / name, recommender, model, options))

    def checkpoint(self, phase: str) -> Path:
        """The file that a phase under way resumes from."""
        return self.folder / "checkpoints" / f"{phase}.pt"

    def forget(self, phase: str) -> None:
        """Remove the checkpoint of a phase that is done."""
        if self.processes.is_first:
            self.checkpoint(phase).unlink(missing_ok=True)
            shutil.rmtree(self.checkpoint(phase).with_suffix(""), ignore_errors=True)

    def finish(self, metrics: dict[str, Any], dataset: Dataset | None) -> None:
        """Write ``metrics.json`` and what an export shows of the data, and remove what only a resume needs.

        Args:
            metrics: of the run.
            dataset: whose first rows are kept, those of the test split too; None where that stays unread.
        """
        if self.processes.is_first:
            if dataset is not None:
                write_excerpt(dataset, self.folder / EXCERPT)
            atomic_json(self.folder / METRICS, metrics)
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        self.processes.wait()
