"""A run's configuration: one frozen dataclass per section, whose values are checked when it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ondevice.config.budget import parse_budget
from ondevice.errors import ConfigError

PROGRAM_METHODS = ("forward", "rank", "recommend")
"""Methods that a program can have."""
RESEARCH = (
    "start",
    "embedding_dropout",
    "pairs_sampling",
    "pairs_popularity",
    "teacher_mean",
    "teacher_temperature",
)
"""Settings of the compact model's training that no recipe uses, since none was better: written under ``research:``."""


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _check(where: str, got: Any, holds: bool, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{where}: got {got!r}; it must be {allowed}")


@dataclass(frozen=True)
class Choice:
    """An entry of a registry and the options for its constructor."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EmbeddingConfig:
    """The full tables before anything is pruned."""

    dim: int = 32
    """Dimension D of every embedding."""
    init_std: float | None = None
    """Standard deviation of the initial weights; null for Xavier uniform."""
    first_order: str | None = None
    """Method of the first-order weights; null for the same as the embeddings."""

    def __post_init__(self) -> None:
        _check("embedding.dim", self.dim, self.dim >= 1, "at least 1")
        std = self.init_std
        _check("embedding.init_std", std, std is None or std > 0, "above 0 or null")


def _check_step(settings: TrainingConfig | SearchConfig) -> None:
    _check("row_wise", settings.row_wise, settings.row_wise in ("auto", True, False), "auto, true or false")
    precisions = ("float32", "bfloat16")
    _check("precision", settings.precision, settings.precision in precisions, "float32 or bfloat16")


@dataclass(frozen=True)
class TrainingConfig:
    """The training of the dense model."""

    batch_size: int = 1024
    """Real rows per step."""
    epochs: int = 15
    """Most passes over the training split."""
    patience: int = 3
    """Epochs without a better validation AUC before the training stops."""
    learning_rate: float = 1e-3
    """Adam's learning rate."""
    schedule: str = "constant"
    """constant or cosine (to zero over ``epochs``)."""
    weight_decay: float = 0.0
    """Weight decay of Adam on every parameter."""
    decoupled_decay: bool = False
    """Whether weight decay acts on the weights themselves (AdamW) and not through the gradient (L2)."""
    embedding_penalty: float = 0.0
    """λ of λ·Σ e², averaged over the rows of the batch, on the embeddings that were looked up."""
    embedding_dropout: float = 0.0
    """Probability of zeroing a looked-up value."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights that is evaluated and kept; 0 for none."""
    ema_every: int = 4
    """Steps between updates of the average."""
    teacher: tuple[str, ...] = ()
    """Whose predictions are learnt: ``dense`` for this run's dense model, ``dense+1`` for one of the next seed, and so
    on, or of finished runs on the same data: ``runs/NAME`` for its dense model, ``runs/NAME/dense+1`` for a further
    one."""
    label_weight: float = 0.3
    """With a teacher: weight of the real label beside the teacher's on real rows, in [0, 1]."""
    pairs: float = 1.0
    """With a teacher: made-up context/item pairs per real row, labelled by the teacher."""
    pairs_sampling: str = "rows"
    """How a pair's item is drawn: rows (one of a training row), uniform (every item alike), popularity (by
    count^pairs_popularity) or uncertainty (of four, one that the teacher is unsure of)."""
    pairs_popularity: float = 0.75
    """Power of an item's count, for pairs_sampling=popularity."""
    teacher_mean: str = "probability"
    """What is averaged over several teachers: probability or logit."""
    teacher_temperature: float | str = 1.0
    """T of the teachers' σ(logit / T): a number, or fitted on the validation split."""
    row_wise: bool | str = "auto"
    """Whether a step touches only the rows that it looks up, with the same result: true, false, or auto (for tables of
    many ids)."""
    precision: str = "float32"
    """float32 or bfloat16: what the base model computes in; weights, tables and the loss are float32."""

    def __post_init__(self) -> None:
        _check("batch_size", self.batch_size, self.batch_size >= 2, "at least 2")
        _check("epochs", self.epochs, self.epochs >= 1, "at least 1")
        _check("patience", self.patience, self.patience >= 1, "at least 1")
        _check("learning_rate", self.learning_rate, self.learning_rate > 0, "above 0")
        _check("weight_decay", self.weight_decay, self.weight_decay >= 0, "at least 0")
        _check("embedding_penalty", self.embedding_penalty, self.embedding_penalty >= 0, "at least 0")
        _check("schedule", self.schedule, self.schedule in ("constant", "cosine"), "constant or cosine")
        _check("ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "in [0, 1)")
        _check("ema_every", self.ema_every, self.ema_every >= 1, "at least 1")
        _check(
            "research.embedding_dropout", self.embedding_dropout, 0 <= self.embedding_dropout < 1, "in [0, 1)"
        )
        _check("label_weight", self.label_weight, 0 <= self.label_weight <= 1, "in [0, 1]")
        _check("pairs", self.pairs, self.pairs >= 0, "at least 0")
        samplings = ("rows", "uniform", "popularity", "uncertainty")
        sampling = self.pairs_sampling
        _check(
            "research.pairs_sampling",
            sampling,
            sampling in samplings,
            "rows, uniform, popularity or uncertainty",
        )
        _check("research.pairs_popularity", self.pairs_popularity, self.pairs_popularity >= 0, "at least 0")
        means = ("probability", "logit")
        _check("research.teacher_mean", self.teacher_mean, self.teacher_mean in means, "probability or logit")
        t = self.teacher_temperature
        _check(
            "research.teacher_temperature",
            t,
            t == "fitted" if isinstance(t, str) else t > 0,
            "above 0 or fitted",
        )
        _check_step(self)


@dataclass(frozen=True)
class SearchConfig:
    """How sizes are learnt."""

    budgets: tuple[int | str, ...] = ("10%",)
    """What is kept: values (20000), a share of the full tables (5%) or bytes of the whole bundle (64KB)."""
    epochs: int = 10
    """Passes of the search: the length of a budget-driven schedule, the most of the other regimes."""
    batch_size: int = 1024
    """Rows per step."""
    learning_rate: float = 1e-3
    """Adam's learning rate."""
    threshold_learning_rate: float | None = None
    """Learning rate of the thresholds; null for the same."""
    weight_decay: float = 0.0
    """Weight decay of Adam; it acts on thresholds only in PEP's decay regime."""
    decoupled_decay: bool = False
    """Whether weight decay acts on the weights themselves (AdamW) and not through the gradient (L2)."""
    embedding_penalty: float = 0.0
    """λ of λ·Σ e² on the looked-up embeddings."""
    check_every: int = 50
    """Steps between counts of what is kept; more for tables much larger than a batch."""
    skip_fields: tuple[str, ...] = ()
    """Fields that compact models store nothing of: all their values read the field's unknown id."""
    row_wise: bool | str = "auto"
    """Whether a step touches only the rows that it looks up, with the same result: true, false, or auto (for tables of
    many ids)."""
    precision: str = "float32"
    """float32 or bfloat16: what the base model computes in; weights, tables and the loss are float32."""

    def __post_init__(self) -> None:
        _check("search.budgets", self.budgets, bool(self.budgets), "at least one")
        for budget in self.budgets:
            parse_budget(budget)
        _check("search.epochs", self.epochs, self.epochs >= 1, "at least 1")
        _check("search.batch_size", self.batch_size, self.batch_size >= 2, "at least 2")
        _check("search.learning_rate", self.learning_rate, self.learning_rate > 0, "above 0")
        rate = self.threshold_learning_rate
        _check("search.threshold_learning_rate", rate, rate is None or rate > 0, "above 0 or null")
        _check("search.weight_decay", self.weight_decay, self.weight_decay >= 0, "at least 0")
        _check("search.embedding_penalty", self.embedding_penalty, self.embedding_penalty >= 0, "at least 0")
        _check("search.check_every", self.check_every, self.check_every >= 1, "at least 1")
        _check_step(self)


@dataclass(frozen=True)
class RetrainConfig(TrainingConfig):
    """The training of the compact model, and what of it is stored; it takes nothing from ``training``."""

    form: str = "sizes"
    """sizes (per-row counts as leading dimensions) or positions (the mask as it was found)."""
    start: str = "initial"
    """initial (the weights saved before the search: lottery ticket; with method=code_saliency those of the model
    that was measured), fresh, or dense (the trained dense model's, as far as they fit: a warm start)."""
    max_size: int | None = None
    """Largest dimension of a row; null for no limit."""
    size_step: int = 2
    """Sizes are multiples of this, the width of the staircase's cells; 1 wastes nothing but looks up more cells."""
    code_dims: int | None = None
    """Dimensions of a cell that is stored as one byte, an index into a learnt codebook; null for int8 values."""
    code_levels: int = 1
    """With codes: 1, or 2 where rows of sizes above max_size, up to twice that, say their dimensions a second time and
    more finely (residual quantization)."""
    code_start: float = 0.4
    """With codes: share of the steps in which values are trained freely before they become codes, in [0, 1)."""
    code_choice: str = "nearest"
    """nearest (to values that go on being trained, straight through) or loss (what lowers it most: Newton's steps)."""
    code_learning_rate: float | None = None
    """Learning rate from code_start on, with code_choice=loss; null for a tenth of learning_rate."""
    model: dict[str, Any] = field(default_factory=dict)
    """Options of the base model that compact models have otherwise, such as {hidden: [64, 32], dropout: 0}; a name
    among them is of another base model, such as {name: fm}."""
    linear_bits: int | None = None
    """Bits of hidden linear layers that are rounded already in training, by torchao: 4 or 8; null: afterwards, to 8."""
    first_order: str = "rows"
    """rows (a weight for each stored row), projection (⟨e, v_field⟩: no byte per row) or none."""
    fingerprint_bits: int | None = None
    """Bits of a fingerprint that stands for a key in the vocabulary, in the fields where that is smaller: one unknown
    key in 2^bits is then taken for another; null: keys are stored as they are."""
    elastic: bool = False
    """Whether one training makes the compact models of all budgets: every smaller one is a part of the largest."""
    methods: tuple[str, ...] | None = None
    """Methods of the programs that ship, which budgets in bytes pay for: some of forward, rank, recommend; null for
    all that the schema and its catalog allow."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("retrain.form", self.form, self.form in ("sizes", "positions"), "sizes or positions")
        _check("retrain.size_step", self.size_step, self.size_step >= 1, "at least 1")
        _check(
            "retrain.max_size",
            self.max_size,
            self.max_size is None or self.max_size >= 1,
            "at least 1 or null",
        )
        starts = ("initial", "fresh", "dense")
        _check("research.start", self.start, self.start in starts, "initial, fresh or dense")
        kinds = ("rows", "projection", "none")
        _check("retrain.first_order", self.first_order, self.first_order in kinds, "rows, projection or none")
        _check("retrain.linear_bits", self.linear_bits, self.linear_bits in (None, 4, 8), "4, 8 or null")
        bits = self.fingerprint_bits
        _check("retrain.fingerprint_bits", bits, bits is None or 1 <= bits <= 32, "from 1 to 32 or null")
        if self.methods is not None:
            known = bool(self.methods) and set(self.methods) <= set(PROGRAM_METHODS)
            allowed = f"null or some of {', '.join(PROGRAM_METHODS)}"
            _check("retrain.methods", self.methods, known, allowed)
        if self.elastic:
            _check("retrain.form", self.form, self.form == "sizes", "sizes when elastic is true")
        _check("retrain.code_start", self.code_start, 0 <= self.code_start < 1, "in [0, 1)")
        choices = ("nearest", "loss")
        _check("retrain.code_choice", self.code_choice, self.code_choice in choices, "nearest or loss")
        rate = self.code_learning_rate
        _check("retrain.code_learning_rate", rate, rate is None or rate > 0, "above 0 or null")
        if self.code_dims is not None:
            _check("retrain.code_dims", self.code_dims, 1 <= self.code_dims <= 16, "from 1 to 16 or null")
            whole = self.size_step % self.code_dims == 0 and (self.max_size or 0) % self.code_dims == 0
            _check(
                "retrain.size_step", self.size_step, whole, "a multiple of code_dims, and max_size as well"
            )
            _check("retrain.form", self.form, self.form == "sizes", "sizes when code_dims is given")
        levels = self.code_levels
        _check("retrain.code_levels", levels, levels in (1, 2), "1 or 2")
        if levels > 1:
            given = self.code_dims is not None and self.max_size is not None and not self.elastic
            _check("retrain.code_levels", levels, given, "1 without code_dims and max_size, and with elastic")


@dataclass(frozen=True)
class RunSection:
    """Where and how the run happens."""

    seed: int = 0
    """Seed of weights, order and dropout (the split has its own)."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1 …"""
    threads: int | None = None
    """CPU threads; null for PyTorch's own choice."""
    output: str | None = None
    """Run directory; null for runs/<config name>."""
    progress: bool = True
    """Show progress bars."""
    test: bool = True
    """Read the test split at the end of every training; false for studies, where it must stay unseen."""
    plugins: tuple[str, ...] = ()
    """Python files that register methods, forms, base models or data sets (docs/extending.md); may be written at the
    top, ``plugins: [my_method.py]``, and is then found beside the configuration."""

    def __post_init__(self) -> None:
        _check("run.threads", self.threads, self.threads is None or self.threads >= 1, "at least 1 or null")


@dataclass(frozen=True)
class DistributedConfig:
    """How a run is spread over the processes that torchrun starts; ``distributed=ddp`` sets the mode alone."""

    mode: str = "none"
    """none (one process), ddp (every process holds the whole model and computes its share of each batch) or sharded
    (the same for the base model, but every process holds some rows of the tables)."""
    timeout: int = 1800
    """Seconds that a step waits for another process before the job ends."""
    table_optimizer: str = "rowwise_adagrad"
    """Optimizer of sharded tables: rowwise_adagrad, adagrad, or on GPUs adam; it touches the batch's rows alone."""
    table_learning_rate: float | None = None
    """Learning rate of sharded tables; null for that of the training."""

    def __post_init__(self) -> None:
        modes = ("none", "ddp", "sharded")
        _check("distributed.mode", self.mode, self.mode in modes, "none, ddp or sharded")
        kinds = ("rowwise_adagrad", "adagrad", "adam")
        _check(
            "distributed.table_optimizer",
            self.table_optimizer,
            self.table_optimizer in kinds,
            ", ".join(kinds),
        )
        rate = self.table_learning_rate
        _check("distributed.table_learning_rate", rate, rate is None or rate > 0, "above 0 or null")
        _check("distributed.timeout", self.timeout, self.timeout >= 1, "at least 1")


@dataclass(frozen=True)
class Config:
    """The whole configuration of a run."""

    data: Choice = Choice("movielens_1m")
    model: Choice = Choice("deepfm")
    method: Choice = Choice("pep")
    embedding: EmbeddingConfig = EmbeddingConfig()
    training: TrainingConfig = TrainingConfig()
    search: SearchConfig = SearchConfig()
    retrain: RetrainConfig = RetrainConfig()
    run: RunSection = RunSection()
    distributed: DistributedConfig = DistributedConfig()

    @property
    def compact_model(self) -> Choice:
        """The base model of compact models: ``retrain.model`` over ``model``, or another one with its own options."""
        given = dict(self.retrain.model)
        name = given.pop("name", self.model.name)
        return Choice(name, given if name != self.model.name else {**self.model.options, **given})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in YAML; `ondevice.config.file.from_dict` reads them back."""
        plain: dict[str, Any] = {}
        for section in dataclasses.fields(self):
            value = getattr(self, section.name)
            if isinstance(value, Choice):
                plain[section.name] = {"name": value.name, **_plain(value.options)}
            else:
                plain[section.name] = _plain(dataclasses.asdict(value))
        plain["training"] = {key: value for key, value in plain["training"].items() if key not in RESEARCH}
        plain["research"] = {key: plain["retrain"].pop(key) for key in RESEARCH}
        return plain
