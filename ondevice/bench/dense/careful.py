"""The careful opponent: what anybody who knows the field makes of the same run without learnt sizes and codes.

One dimension for all rows, in the base model that our compact models have, with all else as theirs: the same teachers
and schedule, the same fields left out, first-order weights stored or projected alike, a vocabulary in our format.
Tables are int8, rounded afterwards, or int4 and int2 with one scale a table, rounded in training
(`compact.store.codebook=grid`). Each is a run of its own below the benchmarked one, ``careful/NAME``: trained once, and
resumed where it was interrupted.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.bench.dense.baselines import Baseline, make_baseline
from ondevice.bench.settings import Settings
from ondevice.bench.shipped import find_bundles
from ondevice.config.sections import (
    Choice,
    CompactConfig,
    Config,
    DistributedConfig,
    SizesConfig,
    TeachConfig,
    TrainConfig,
)
from ondevice.config.stores import Codes, Int8, Store
from ondevice.data import Dataset
from ondevice.files import atomic_write
from ondevice.program.bundle import Bundle, load_bundle
from ondevice.recommender import Recommender
from ondevice.run.directory import METRICS, Run
from ondevice.run.pipeline import Pipeline
from ondevice.training.teacher import dense_number

FOLDER, TAUGHT = "careful", "taught"
ROUNDING_START = 0.5
"""Share of the steps after which int4 and int2 values are rounded; our codes begin as late."""
Score = Callable[[str, Bundle, Dataset], dict[str, Any]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Uniform:
    """One careful program.

    Args:
        dim: dimensions of every row.
        bits: of each of its values: 8, 4 or 2.
        min_count: occurrences in training below which a value is stored nowhere.
    """

    dim: int
    bits: int
    min_count: int = 1

    @property
    def name(self) -> str:
        rare = "" if self.min_count == 1 else f"-min{self.min_count}"
        return f"d{self.dim}-int{self.bits}{rare}"

    @classmethod
    def named(cls, name: str) -> Uniform | None:
        """The program of a `name`; None where it is no such name."""
        match = re.fullmatch(r"d(\d+)-int(\d)(?:-min(\d+))?", name)
        return match and cls(int(match[1]), int(match[2]), int(match[3] or 1))


class BorrowingPipeline(Pipeline):
    """A run whose dense models, teachers among them, are those of another run on the same data.

    Args:
        config: of this run.
        folder: its directory; what is there is continued.
        lender: the finished run.
    """

    def __init__(self, config: Config, folder: Path, lender: Run) -> None:
        self.lender = lender
        super().__init__(config, folder, resume=True)

    def dense(self) -> Recommender:
        self.state.setdefault("dense", self.lender.metrics["dense"])
        return self.lender.dense().to(self.device)

    def _further_dense(self, number: int) -> Recommender:
        return self.lender.dense(f"dense+{number}").to(self.device)


def family(config: Config, settings: Settings) -> Iterator[Uniform]:
    """The careful programs that a benchmark compares with, the smallest first."""
    for bits in sorted(settings.careful_bits):
        for dim in sorted(settings.careful_dims):
            if dim <= config.embedding.dim and dim % (8 // bits) == 0:
                yield from (Uniform(dim, bits, count) for count in settings.careful_min_counts)


def careful_config(run: Run, uniform: Uniform) -> Config:
    """The configuration of a careful program: the run's, but for sizes and what values are stored as."""
    compact = run.config.compact
    options = {} if uniform.min_count == 1 else {"min_count": uniform.min_count}
    changed = dataclasses.replace(
        compact,
        budgets=("100%",),
        sizes=SizesConfig("uniform", options),
        store=_store(compact.store, uniform),
        train=dataclasses.replace(compact.train, elastic=False),
    )
    return dataclasses.replace(_alone(run), compact=changed)


def _store(ours: Store, uniform: Uniform) -> Store:
    shared = {key: getattr(ours, key) for key in ("first_order", "linear_bits", "fingerprint_bits")}
    if uniform.bits == 8:
        return Int8(max_size=uniform.dim, size_step=1, **shared)
    width = 8 // uniform.bits
    return Codes(
        max_size=uniform.dim,
        size_step=width,
        code_dims=width,
        code_start=ROUNDING_START,
        codebook="grid",
        **shared,
    )


def taught_config(run: Run) -> Config:
    """The configuration of the dense model that learns from the compact models' teachers, in as many epochs.

    Its learning rate and weight decay are those that the dense model was tuned for.
    """
    config = run.config
    teach, train = config.compact.teach, config.compact.train
    teachers = tuple(
        name if dense_number(name) is None else str((run.path / name).resolve()) for name in teach.teachers
    )
    schedule = {field.name: getattr(train, field.name) for field in dataclasses.fields(TrainConfig)}
    tuned = {key: getattr(config.train, key) for key in ("learning_rate", "weight_decay", "decoupled_decay")}
    return dataclasses.replace(
        _alone(run),
        teach=TeachConfig(teachers, teach.label_weight, teach.pairs),
        train=TrainConfig(**{**schedule, **tuned}),
        compact=CompactConfig(),
    )


def _alone(run: Run) -> Config:
    """The run's configuration with the data where they are now, in one process."""
    config = run.config
    return dataclasses.replace(
        config,
        data=Choice(config.data.name, {**config.data.options, **run.data}),
        run=dataclasses.replace(config.run, output=None),
        distributed=DistributedConfig(),
    )


def measure_careful(run: Run, settings: Settings, score: Score, say: Say) -> list[dict[str, Any]]:
    """Every careful program of a run: trained and exported where that is not done yet, and scored.

    Where any is asked for, those that were trained for the run before take part as well.

    Returns: for each its ``name``, ``dim``, ``bits``, ``min_count``, ``bytes`` of the whole bundle, and the validation
        and test AUC.
    """
    wanted, measured = list(family(run.config, settings)), []
    if wanted:
        trained = (
            Uniform.named(path.parent.name) for path in sorted((run.path / FOLDER).glob(f"*/{METRICS}"))
        )
        wanted += [uniform for uniform in trained if uniform and uniform not in wanted]
    for number, uniform in enumerate(wanted, 1):
        folder = run.path / FOLDER / uniform.name
        if not (folder / METRICS).exists():
            say(f"careful {uniform.name}: trained, {number} of {len(wanted)}")
            BorrowingPipeline(careful_config(run, uniform), folder, run).run()
            for name in (
                "initial.safetensors",
                "search.safetensors",
            ):  # for more budgets, of which there are none
                (folder / name).unlink(missing_ok=True)
        finished = Run(folder, run.data)
        (place,) = find_bundles(finished, [], None, lambda _: None).values()
        bundle = load_bundle(place)
        quality = score(uniform.name, bundle, finished.dataset())
        sizes = bundle.file_bytes()
        measured.append(
            {
                "name": uniform.name,
                **dataclasses.asdict(uniform),
                "bytes": bundle.needed_bytes,
                "vocabulary_bytes": sizes["vocabulary.bin"],
                "valid_auc": finished.metrics["compact"]["valid_auc"],
                **{key: quality[key] for key in ("test_auc", "test_logloss")},
            }
        )
        say(f"careful {uniform.name}: {bundle.needed_bytes:,} bytes, test AUC {quality['test_auc']:.4f}")
    return sorted(measured, key=lambda p: p["bytes"])


def taught_baseline(run: Run, say: Say) -> tuple[Baseline, Path, float] | None:
    """The fp32 program of the taught dense model, its file and validation AUC; None where ours have no teacher.

    Raises: UserError: when a teacher is no longer where it was.
    """
    if not run.config.compact.teach.teachers:
        return None
    folder = run.path / FOLDER / TAUGHT
    pipeline = Pipeline(taught_config(run), folder, resume=True)
    if "dense" not in pipeline.state:
        say("dense, taught: trained")
    recommender = pipeline.dense()
    made = make_baseline(recommender.cpu().eval(), "fp32")
    path = run.path / "baselines" / f"{TAUGHT}.pte"
    atomic_write(path, made.pte)
    return made, path, pipeline.state["dense"]["valid_auc"]
