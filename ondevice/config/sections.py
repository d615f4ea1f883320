"""A run's configuration: one frozen dataclass per section, whose values are checked when it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ondevice.config.budget import parse_budget
from ondevice.config.check import check
from ondevice.config.stores import Int8, Store

ENDPOINTS = ("forward", "rank", "recommend")
"""Endpoints that a program can have."""
NEXT_ITEM_LOSSES = ("softmax", "sampled_softmax", "bpr")
"""Losses of what comes next in a history."""
LOSSES = ("bce", *NEXT_ITEM_LOSSES)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _check_step(settings: TrainConfig | SizesConfig) -> None:
    check("batch_size", settings.batch_size, settings.batch_size >= 2, "at least 2")
    check("epochs", settings.epochs, settings.epochs >= 1, "at least 1")
    check("learning_rate", settings.learning_rate, settings.learning_rate > 0, "above 0")
    check("weight_decay", settings.weight_decay, settings.weight_decay >= 0, "at least 0")
    check("embedding_penalty", settings.embedding_penalty, settings.embedding_penalty >= 0, "at least 0")
    check("row_wise", settings.row_wise, settings.row_wise in ("auto", True, False), "auto, true or false")
    precisions = ("float32", "bfloat16")
    check("precision", settings.precision, settings.precision in precisions, "float32 or bfloat16")


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
        check("dim", self.dim, self.dim >= 1, "at least 1")
        std = self.init_std
        check("init_std", std, std is None or std > 0, "above 0 or null")


@dataclass(frozen=True)
class TrainConfig:
    """The training of the dense model."""

    batch_size: int = 1024
    """Real rows per step."""
    epochs: int = 15
    """Most passes over the training split."""
    patience: int = 3
    """Epochs without a better validation metric (AUC; for the next item NDCG@10) before the training stops."""
    loss: str = "bce"
    """bce (log loss of each row); for the next item softmax (over all items), sampled_softmax (over drawn ones,
    with the log-Q correction; for large catalogues) or bpr (each against a drawn one)."""
    num_negatives: int = 512
    """Items that sampled_softmax draws for each step."""
    windows: int = 2
    """Of a history, windows in each epoch of the next item: half of them, rounded up, the newest, the others drawn."""
    item_dropout: float = 0.0
    """Of the next item, the probability that a step leaves out an item's own row, so that its attributes learn
    to stand alone; for data whose items have some, and the dense model alone. What attributes are worth to new items is
    fitted to the items' rows when a model is exported."""
    learning_rate: float = 1e-3
    """Adam's learning rate."""
    schedule: str = "constant"
    """constant or cosine (to zero over ``epochs``)."""
    warmup: float = 0.0
    """Share of the steps over which the learning rate rises to what the schedule says."""
    weight_decay: float = 0.0
    """Weight decay of Adam on every parameter."""
    decoupled_decay: bool = False
    """Whether weight decay acts on the weights themselves (AdamW) and not through the gradient (L2)."""
    embedding_penalty: float = 0.0
    """λ of λ·Σ e², averaged over the rows of the batch, on the embeddings that were looked up."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights that is evaluated and kept; 0 for none."""
    ema_every: int = 4
    """Steps between updates of the average."""
    row_wise: bool | str = "auto"
    """Whether a step touches only the rows that it looks up, with the same result: true, false, or auto (for tables of
    many ids)."""
    precision: str = "float32"
    """float32 or bfloat16: what the base model computes in; weights, tables and the loss are float32."""

    def __post_init__(self) -> None:
        _check_step(self)
        check("patience", self.patience, self.patience >= 1, "at least 1")
        check("schedule", self.schedule, self.schedule in ("constant", "cosine"), "constant or cosine")
        check("loss", self.loss, self.loss in LOSSES, ", ".join(LOSSES))
        check("num_negatives", self.num_negatives, self.num_negatives >= 1, "at least 1")
        check("windows", self.windows, self.windows >= 1, "at least 1")
        check("item_dropout", self.item_dropout, 0 <= self.item_dropout < 1, "in [0, 1)")
        check("warmup", self.warmup, 0 <= self.warmup < 1, "in [0, 1)")
        check("ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "in [0, 1)")
        check("ema_every", self.ema_every, self.ema_every >= 1, "at least 1")


@dataclass(frozen=True)
class TeachConfig:
    """Whose predictions the dense model learns beside the labels."""

    teachers: tuple[str, ...] = ()
    """Finished runs on the same data: ``runs/NAME`` for its dense model, ``runs/NAME/dense+1`` for a further one."""
    label_weight: float = 0.3
    """Weight of the real label beside the teachers' on real rows, in [0, 1]."""
    pairs: float = 1.0
    """Made-up context/item pairs per real row, labelled by the teachers."""

    def __post_init__(self) -> None:
        check("label_weight", self.label_weight, 0 <= self.label_weight <= 1, "in [0, 1]")
        check("pairs", self.pairs, self.pairs >= 0, "at least 0")


@dataclass(frozen=True)
class SizesConfig:
    """How many values each row keeps: a method with its options, and how those methods train that do."""

    name: str = "pep"
    """Name of the method."""
    options: dict[str, Any] = field(default_factory=dict)
    """Its options, which stand beside its name."""
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
    row_wise: bool | str = "auto"
    """Whether a step touches only the rows that it looks up, with the same result: true, false, or auto (for tables of
    many ids)."""
    precision: str = "float32"
    """float32 or bfloat16: what the base model computes in; weights, tables and the loss are float32."""

    def __post_init__(self) -> None:
        _check_step(self)
        rate = self.threshold_learning_rate
        check("threshold_learning_rate", rate, rate is None or rate > 0, "above 0 or null")
        check("check_every", self.check_every, self.check_every >= 1, "at least 1")


SCHEDULE = tuple(f.name for f in dataclasses.fields(SizesConfig) if f.name not in ("name", "options"))
"""Keys of ``compact.sizes`` that say how a method trains; a method's constructor has no option of such a name."""


@dataclass(frozen=True)
class CompactTeachConfig(TeachConfig):
    """Whose predictions compact models learn beside the labels."""

    teachers: tuple[str, ...] = ()
    """``dense`` for this run's dense model, ``dense+1`` for one of the next seed, and so on, or those of finished runs
    on the same data: ``runs/NAME`` for its dense model, ``runs/NAME/dense+1`` for a further one."""


@dataclass(frozen=True)
class CompactTrainConfig(TrainConfig):
    """The training of the compact models; it takes nothing from that of the dense model."""

    elastic: bool = False
    """Whether one training makes the compact models of all budgets: every smaller one is a part of the largest."""


@dataclass(frozen=True)
class CompactConfig:
    """The compact models: what they may take, and what they are made of."""

    budgets: tuple[int | str, ...] = ("10%",)
    """What is kept: values (20000), a share of the full tables (5%) or bytes of the whole bundle (64KB)."""
    skip_fields: tuple[str, ...] = ()
    """Fields that compact models store nothing of: all their values read the field's unknown id."""
    endpoints: tuple[str, ...] | None = None
    """Endpoints of the programs that ship, which budgets in bytes pay for: some of forward, rank, recommend; null for
    all that the schema and its catalog allow."""
    model: dict[str, Any] = field(default_factory=dict)
    """Options of the base model that compact models have otherwise, such as {hidden: [64, 32], dropout: 0}; a name
    among them is of another base model, such as {name: fm}."""
    sizes: SizesConfig = SizesConfig()
    store: Store = field(default_factory=Int8)
    teach: CompactTeachConfig = CompactTeachConfig()
    train: CompactTrainConfig = CompactTrainConfig()

    def __post_init__(self) -> None:
        check("budgets", self.budgets, bool(self.budgets), "at least one")
        for budget in self.budgets:
            parse_budget(budget)
        if self.endpoints is not None:
            known = bool(self.endpoints) and set(self.endpoints) <= set(ENDPOINTS)
            check("endpoints", self.endpoints, known, f"null or some of {', '.join(ENDPOINTS)}")
            scores = set(self.endpoints) != {"recommend"}
            check(
                "endpoints",
                self.endpoints,
                scores,
                "forward or rank, too: a bundle is proven by scores of rows",
            )
        if self.train.elastic:
            sized = not self.store.keeps_positions
            check("store.name", self.store.name, sized, "int8 or codes when compact.train.elastic is true")
            levels = 1 if self.store.codes is None else self.store.codes.code_levels
            check("store.code_levels", levels, levels == 1, "1 when compact.train.elastic is true")
            learnt = self.store.codes is None or self.store.codes.codebook == "learnt"
            check("store.codebook", "grid", learnt, "learnt when compact.train.elastic is true")


STARTS = ("initial", "fresh", "dense")
"""What compact models begin with; those of the next item also with the dense model of another run."""


@dataclass(frozen=True)
class ResearchConfig:
    """Settings of the compact models' training that no recipe of ratings uses, since none was better there."""

    start: str = "initial"
    """initial (the weights saved before the search: lottery ticket; with compact.sizes=code_saliency those of the model
    that was measured), fresh, or dense (the trained dense model's, as far as they fit: a warm start; of the next item
    the model that is measured begins with them, and the folder of a finished run names its dense model, with which the
    dense model itself begins where no budget asks for compact ones)."""
    embedding_dropout: float = 0.0
    """Probability of zeroing a looked-up value."""
    pairs_sampling: str = "rows"
    """How a pair's item is drawn: rows (one of a training row), uniform (every item alike), popularity (by
    count^pairs_popularity) or uncertainty (of four, one that the teacher is unsure of)."""
    pairs_popularity: float = 0.75
    """Power of an item's count, for pairs_sampling=popularity."""
    teacher_mean: str = "probability"
    """What is averaged over several teachers: probability or logit."""
    teacher_temperature: float | str = 1.0
    """T of the teachers' σ(logit / T): a number, or fitted on the validation split."""

    def __post_init__(self) -> None:
        dropout = self.embedding_dropout
        check("embedding_dropout", dropout, 0 <= dropout < 1, "in [0, 1)")
        samplings = ("rows", "uniform", "popularity", "uncertainty")
        sampling = self.pairs_sampling
        check("pairs_sampling", sampling, sampling in samplings, "rows, uniform, popularity or uncertainty")
        check("pairs_popularity", self.pairs_popularity, self.pairs_popularity >= 0, "at least 0")
        means = ("probability", "logit")
        check("teacher_mean", self.teacher_mean, self.teacher_mean in means, "probability or logit")
        t = self.teacher_temperature
        holds = t == "fitted" if isinstance(t, str) else t > 0
        check("teacher_temperature", t, holds, "above 0 or fitted")


@dataclass(frozen=True)
class RunConfig:
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
    rank: bool = False
    """Rank the whole catalogue by models of ratings, too: HR, NDCG, Recall, MRR and coverage of the test split's
    positive rows, seen items left out; with --resume of a finished run, too."""
    plugins: tuple[str, ...] = ()
    """Python files that register methods, forms, base models or data sets (docs/extending.md); may be written at the
    top, ``plugins: [my_method.py]``, and is then found beside the configuration."""

    def __post_init__(self) -> None:
        check("threads", self.threads, self.threads is None or self.threads >= 1, "at least 1 or null")
        check("rank", self.rank, self.test or not self.rank, "false where run.test is false")


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
        check("mode", self.mode, self.mode in modes, "none, ddp or sharded")
        kinds = ("rowwise_adagrad", "adagrad", "adam")
        check(
            "table_optimizer",
            self.table_optimizer,
            self.table_optimizer in kinds,
            ", ".join(kinds),
        )
        rate = self.table_learning_rate
        check("table_learning_rate", rate, rate is None or rate > 0, "above 0 or null")
        check("timeout", self.timeout, self.timeout >= 1, "at least 1")


@dataclass(frozen=True)
class Config:
    """The whole configuration of a run; no section takes anything from another."""

    data: Choice = Choice("movielens_1m")
    model: Choice = Choice("deepfm")
    embedding: EmbeddingConfig = EmbeddingConfig()
    train: TrainConfig = TrainConfig()
    teach: TeachConfig = TeachConfig()
    compact: CompactConfig = CompactConfig()
    research: ResearchConfig = ResearchConfig()
    run: RunConfig = RunConfig()
    distributed: DistributedConfig = DistributedConfig()

    @property
    def compact_model(self) -> Choice:
        """The base model of compact models: ``compact.model`` over ``model``, or another one with its own options."""
        given = dict(self.compact.model)
        name = given.pop("name", self.model.name)
        return Choice(name, given if name != self.model.name else {**self.model.options, **given})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in YAML; `ondevice.config.file.from_dict` reads them back."""
        return _section_dict(self)

    def flat(self) -> dict[str, Any]:
        """Plain values by ``section.key``."""
        return dict(_flat("", self))


def _section_dict(section: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    if isinstance(section, Store):
        plain["name"] = section.name
    for entry in dataclasses.fields(section):
        value = getattr(section, entry.name)
        if entry.name == "options":
            plain |= _plain(value)
        else:
            plain[entry.name] = _section_dict(value) if dataclasses.is_dataclass(value) else _plain(value)
    return plain


def _flat(section: str, value: Any) -> Iterator[tuple[str, Any]]:
    plain = _section_dict(value)
    for key, each in plain.items():
        inner = getattr(value, key, None)
        if dataclasses.is_dataclass(inner):
            yield from _flat(f"{section}{key}.", inner)
        else:
            yield f"{section}{key}", each
