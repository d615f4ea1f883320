"""What a method may ask for while it is prepared: the pipeline gives it, and knows no method by name."""

from __future__ import annotations

from typing import Protocol, TypeVar

from torch import Tensor

from ondevice.config.sections import Config, TrainConfig
from ondevice.forms.base import Form
from ondevice.forms.table import TableInfo
from ondevice.recommender import TableModel
from ondevice.training.batches import Batches
from ondevice.training.processes import Processes

M = TypeVar("M", bound=TableModel)
"""The kind of model that a run trains."""


class SearchContext(Protocol[M]):
    """The services of a run to the method that searches in it. A method that needs something new extends this.

    A run is one of ratings or of the next item: methods see tables, whoever reads them.
    """

    config: Config
    info: TableInfo
    processes: Processes
    skip: tuple[int, ...]
    """Places of the fields that compact models store nothing of."""
    item_columns: tuple[int, ...]
    """Columns of the item-side fields in a row of ids, for made-up pairs; none where rows are no rows of ids."""
    recommender: M
    """The model whose tables are searched, with the initial weights of the run."""

    def dense(self) -> M:
        """The trained dense model."""

    def train_batches(self, batch_size: int) -> Batches:
        """The training split of a run of ratings."""

    def search(self) -> list[dict[str, float]]:
        """Train ``recommender`` with its methods in place until every target is passed; returns the history.

        What its tables keep when a target is passed is what was found for it. A run of the next item has no such
        search: a method that asks for it says so (`Method.searches_in_place`).
        """

    def compact_model(self, forms: list[Form], initial: M | None) -> M:
        """A compact model under ``forms`` (of the embeddings, then of first-order weights), not trained yet."""

    def train(self, recommender: M, settings: TrainConfig) -> list[dict[str, float]]:
        """Train a compact model, with the teachers of compact models; the history, an entry per epoch."""

    def gains(self, num_dims: int, pairs: float) -> Tensor:
        """What the leading dimensions of the dense model's rows are worth (N, num_dims): `ondevice.methods.gains`.

        Args:
            num_dims: leading dimensions to measure.
            pairs: made-up pairs or histories for each real one.
        """

    def code_gains(self, recommender: M) -> Tensor:
        """What each code of a compact model's rows takes from the loss (N, K): `CodeSearch.gains`."""

    def begin_retraining_with(self, recommender: M, is_rotated: bool) -> None:
        """Let ``research.start=initial`` begin with a model whose axes were rotated already, or not.

        Args:
            recommender: a compact model, kept as it is.
            is_rotated: whether its axes are already those that codes are good at.
        """
