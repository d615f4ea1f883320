"""What a method may ask for while it is prepared: the pipeline gives it, and knows no method by name."""

from __future__ import annotations

from typing import Protocol

from ondevice.config.sections import Config, TrainConfig
from ondevice.forms.base import Form
from ondevice.forms.table import TableInfo
from ondevice.recommender import Recommender
from ondevice.training.batches import Batches
from ondevice.training.processes import Processes
from ondevice.training.teacher import Teacher


class SearchContext(Protocol):
    """The services of a run to the method that searches in it. A method that needs something new extends this."""

    config: Config
    info: TableInfo
    processes: Processes
    skip: tuple[int, ...]
    """Places of the fields that compact models store nothing of."""
    item_columns: tuple[int, ...]
    """Columns of the item-side fields in a row of ids, for made-up pairs."""
    recommender: Recommender
    """The model whose tables are searched, with the initial weights of the run."""

    def dense(self) -> Recommender:
        """The trained dense model."""

    def train_batches(self, batch_size: int) -> Batches:
        """The training split."""

    def search(self) -> list[dict[str, float]]:
        """Train ``recommender`` with its methods in place until every target is passed; returns the history.

        What its tables keep when a target is passed is what was found for it.
        """

    def compact_model(self, forms: list[Form], initial: Recommender | None) -> Recommender:
        """A compact model under ``forms`` (of the embeddings, then of first-order weights), not trained yet."""

    def train(self, recommender: Recommender, settings: TrainConfig) -> list[dict[str, float]]:
        """Train a compact model, with the teachers of compact models; the history, an entry per epoch."""

    def teacher(self) -> Teacher | None:
        """The teachers of compact models."""

    def begin_retraining_with(self, recommender: Recommender, is_rotated: bool) -> None:
        """Let ``research.start=initial`` begin with a model whose axes were rotated already, or not.

        Args:
            recommender: a compact model, kept as it is.
            is_rotated: whether its axes are already those that codes are good at.
        """
