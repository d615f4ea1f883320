"""The main job: dense model, search, retraining of each budget, tests, in a resumable run directory."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, cast

from safetensors.torch import load as load_safetensors
from torch import Tensor

from ondevice.config.budget import budget_label
from ondevice.config.sections import ResearchConfig, TrainConfig
from ondevice.forms.base import Form
from ondevice.forms.codes import CodedEmbedding
from ondevice.methods.base import Method, Selection, forms_at
from ondevice.methods.code_search import code_stages
from ondevice.methods.selection import described, named, part_of, read_selection
from ondevice.methods.sizing import skipped
from ondevice.recommender import Recommender
from ondevice.run import ranked
from ondevice.run.budgets import shortfall
from ondevice.run.elastic import ELASTIC, LEVELS, Cutter, ElasticFit
from ondevice.run.levels import Staircases, load_staircases, save_staircases
from ondevice.run.pipeline_context import SEARCHED, PipelineContext
from ondevice.run.prepared import PreparedRun
from ondevice.training import qat
from ondevice.training.batches import Batches
from ondevice.training.checkpoint import load_recommender, tensors_of
from ondevice.training.fit import Fit, FitResult, count_parameters, evaluate
from ondevice.training.norm import synced
from ondevice.training.rank_rows import Contexts
from ondevice.training.teacher import Teacher, dense_number, make_teacher


class Pipeline(PreparedRun):
    """Runs the phases of a configuration in a run directory; phases already done are not done again.

    Arguments and errors are those of `PreparedRun`.
    """

    def run(self) -> dict[str, Any]:
        """All phases; returns what ``metrics.json`` holds."""
        with self.processes.guard():
            return self._run()

    def _run(self) -> dict[str, Any]:
        targets = self.targets()
        dense = self.dense()
        forms = self.search(dense, sorted(set(targets.values()), reverse=True))
        if self.config.compact.train.elastic:
            self.elastic(targets, forms, dense)
        else:
            for budget, target in targets.items():
                self.retrain(budget, forms[target], target, dense)
        if self.config.run.rank:
            self._rank()
        metrics = self.metrics()
        self.progress.close()
        return metrics

    def targets(self) -> dict[int | str, int]:
        """For each budget, the number of values at which the search stops."""
        return {budget: self.budgets.search_target(budget) for budget in self.config.compact.budgets}

    def fit(
        self,
        phase: str,
        recommender: Recommender,
        settings: TrainConfig,
        dense: Recommender | None,
        seed: int | None = None,
        kind: Callable[..., Fit] = Fit,
    ) -> FitResult:
        train = self.train_batches(settings.batch_size)
        synced(recommender, self.processes)
        fit = kind(
            recommender,
            train,
            self.valid,
            settings,
            seed=self.config.run.seed if seed is None else seed,
            phase=phase,
            progress=self.progress,
            checkpoint=self.files.checkpoint(phase),
            teacher=self.teacher_of(train, dense),
            processes=self.processes,
            make_stages=code_stages(self.config.compact.store),
            embedding_dropout=self.research(dense).embedding_dropout,
        )
        return fit.run()

    def research(self, dense: Recommender | None) -> ResearchConfig:
        """What ``research`` says, which is of compact models alone; ``dense`` is None for the dense model itself."""
        return ResearchConfig() if dense is None else self.config.research

    def teacher_of(self, train: Batches, dense: Recommender | None) -> Teacher | None:
        """The teachers of compact models, or with None for ``dense`` those of the dense model."""
        teach = self.config.teach if dense is None else self.config.compact.teach
        if not teach.teachers:
            return None
        models = []
        for name in teach.teachers:
            number = dense_number(name)
            if number is None:
                models.append(self._other_dense(name))
            elif number:
                models.append(self._further_dense(number))
            else:
                assert dense is not None  # `check_options` lets no dense model be its own teacher
                models.append(dense)
        return make_teacher(
            teach,
            models,
            self.info,
            train,
            self.valid,
            self.dataset.schema.item_columns,
            research=self.research(dense),
            skip=() if dense is None else self.skip,
            processes=self.processes,
            say=self.progress.say,
        )

    def dense(self) -> Recommender:
        """The dense model: trained, or read back."""
        folder = self.folder / "dense"
        if "dense" not in self.state:
            recommender = self._fresh("uniform", {}, None)
            result = self.fit("dense", recommender, self.config.train, None)
            parameters = count_parameters(recommender)
            self.files.save("dense", recommender, self.config.model.name, self.model_options)
            self._finish("dense", recommender, result, {"parameters": parameters})
        return load_recommender(folder, self.info).to(self.device)

    def _further_dense(self, number: int) -> Recommender:
        """The dense model that `run.seed` + ``number`` gives, a teacher only: its test split is never read."""
        phase = f"dense+{number}"
        if phase not in self.state:
            seed = self.config.run.seed + number
            recommender = self._fresh("uniform", {}, None, seed=seed)
            result = self.fit("dense", recommender, self.config.train, None, seed)
            self.files.save(phase, recommender, self.config.model.name, self.model_options)
            self.files.remember(**{phase: {"valid_auc": result.valid["auc"], "epochs": result.epochs}})
            self.files.forget("dense")
            self.progress.say(f"{phase}: valid AUC {result.valid['auc']:.4f}, a teacher")
        return load_recommender(self.folder / phase, self.info).to(self.device)

    def _test(self, recommender: Recommender) -> dict[str, float]:
        return evaluate(recommender, Batches(self.dataset.test, 8192, self.device), self.processes)

    def _finish(self, phase: str, recommender: Recommender, result: FitResult, extra: dict[str, Any]) -> None:
        """Read the test split, once, and remember the phase as done."""
        entry = self._entry(phase, recommender, result, extra)
        self.files.remember(**{phase: entry}, history={**self.state["history"], phase: result.history})
        self.files.forget(phase)

    def _entry(
        self, phase: str, recommender: Recommender, result: FitResult, extra: dict[str, Any]
    ) -> dict[str, Any]:
        """What ``metrics.json`` says of a trained model; its test split is read here and nowhere else."""
        reads_test = self.config.run.test
        test = self._test(recommender) if reads_test else {}
        best = f"test AUC {test['auc']:.4f}" if reads_test else f"valid AUC {result.valid['auc']:.4f}"
        self.progress.say(f"{phase}: {best}, {result.epochs} epochs, {result.seconds:.0f} s")
        return {
            "test_auc": test.get("auc"),
            "test_logloss": test.get("logloss"),
            "valid_auc": result.valid["auc"],
            "valid_logloss": result.valid["logloss"],
            **extra,
            "seconds": round(result.seconds, 2),
            "epochs": result.epochs,
        }

    def search(self, dense: Recommender, targets: list[int]) -> dict[int, list[Selection]]:
        """The forms at each target: found, or read back."""
        if "search" not in self.state or not set(targets) <= {
            int(t) for t in self.state["search"]["targets"]
        }:
            self._search(dense, targets)
        stored = load_safetensors((self.folder / "search.safetensors").read_bytes())
        descriptions = self.state["search"]["found"]
        return {
            target: [
                read_selection(description, part_of(stored, f"{target}/{place}"))
                for place, description in enumerate(descriptions[str(target)])
            ]
            for target in targets
        }

    def _search(self, dense: Recommender, targets: list[int]) -> None:
        """Let the method find what is kept at each target, and write it."""
        initial = self._searching()
        self.files.write("initial.safetensors", tensors_of(initial))
        started = time.perf_counter()
        context = PipelineContext(self, self.fit, self.teacher_of, initial, dense, targets)
        method = initial.tables()[0]
        assert isinstance(method, Method)
        history = method.prepare(context)
        selections = context.selections
        if not selections:
            removed = (self.info.counts == 0) | skipped(self.info, self.skip)
            rows = self.config.compact.store.first_order == "rows"
            tables = [cast(Method, table) for table in initial.tables()]
            selections = {target: forms_at(tables, target, removed, rows) for target in targets}
        seconds = time.perf_counter() - started if context.seconds is None else context.seconds
        content: dict[str, Tensor] = {}
        for target, forms in selections.items():
            for place, form in enumerate(forms):
                content |= named(form, f"{target}/{place}")
        self.files.write("search.safetensors", content)
        entry = {
            "seconds": round(seconds, 2),
            "targets": [str(target) for target in targets],
            "found": {
                str(target): [described(form) for form in forms] for target, forms in selections.items()
            },
        }
        self.files.remember(search=entry, history={**self.state["history"], "search": history})
        self.files.forget("search")

    def _start(self, forms: list[Form]) -> Recommender:
        """The compact recommender that a retraining begins with."""
        initial, start = None, self.config.research.start
        measured = start == "initial" and SEARCHED in self.state
        if measured:  # it begins with the model that the method measured
            initial = load_recommender(self.folder / SEARCHED, self.info).to(self.device)
        elif start == "initial":
            initial = self._searching()
            initial.load_state_dict(load_safetensors((self.folder / "initial.safetensors").read_bytes()))
        elif start == "dense":
            initial = self.dense()
        recommender = self.rebuilt(self.info, forms, initial)
        if measured and recommender.embedding.learns_codes:
            cast(CodedEmbedding, recommender.embedding).is_rotated = self.state[SEARCHED]["is_rotated"]
        return recommender

    def retrain(self, budget: int | str, forms: list[Selection], target: int, dense: Recommender) -> None:
        """Train the compact model of one budget."""
        label = budget_label(budget)
        if label in self.state.get("compact", {}):
            return
        compact = self.config.compact
        final = self.budgets.forms(budget, target, forms)
        recommender = self._start(final)
        phase = f"retrain-{label}"
        kept, full = recommender.num_kept(), dense.num_values()
        self.progress.say(
            f"{phase}: {kept:,} of {full:,} values kept, {int(sum(final[0].row_sizes() > 0)):,} rows"
        )
        unused = shortfall(budget, self.budgets.estimated_bytes(final), final[0].row_sizes())
        if unused is not None:
            self.progress.say(f"{phase}: {budget} is estimated to come out {unused}")
        qat.prepare(recommender.model, compact.store.linear_bits)
        result = self.fit(phase, recommender, compact.train, dense)
        qat.finish(recommender.model)
        self.files.save(f"budgets/{label}", recommender, self.config.compact_model.name, self.compact_options)
        self._finish(phase, recommender, result, {"kept_parameters": kept, "sparsity": 1 - kept / full})
        entry = self.state.pop(phase)
        history = self.state["history"]
        history[label] = history.pop(phase)
        self.files.remember(compact={**self.state.get("compact", {}), label: entry}, history=history)

    def elastic(
        self, targets: dict[int | str, int], selections: dict[int, list[Selection]], dense: Recommender
    ) -> None:
        """Train the largest compact model so that the others are parts of it, and cut these from it."""
        compact, folder, name = self.config.compact, self.folder / ELASTIC, self.config.compact_model.name
        cutter = Cutter(name, self.compact_options, self.dataset, compact)
        if ELASTIC not in self.state:
            staircases = Staircases.of_budgets(
                self.budgets, [(b, t, selections[t]) for b, t in targets.items()]
            )
            recommender = self._start(staircases.levels[0].forms)
            each = ", ".join(f"{sum(f.num_kept() for f in level.forms):,}" for level in staircases.levels)
            self.progress.say(f"{ELASTIC}: {each} of {dense.num_values():,} values kept")
            qat.prepare(recommender.model, compact.store.linear_bits)
            kind = functools.partial(ElasticFit, staircases=staircases, cutter=cutter)
            result = self.fit(ELASTIC, recommender, compact.train, dense, kind=kind)
            self.files.save(ELASTIC, recommender, name, self.compact_options)
            self.processes.only_first(lambda: save_staircases(folder / LEVELS, staircases))
            entry = {
                "valid_auc": result.valid["auc"],
                "seconds": round(result.seconds, 2),
                "epochs": result.epochs,
            }
            self.files.remember(
                **{ELASTIC: entry}, history={**self.state["history"], ELASTIC: result.history}
            )
            self.files.forget(ELASTIC)
        whole, trained = load_recommender(folder, self.info).to(self.device), self.state[ELASTIC]
        staircases = load_staircases(folder / LEVELS, self.budgets)
        for budget, searched in targets.items():
            label = budget_label(budget)
            if label in self.state.get("compact", {}):
                continue
            smaller = cutter(whole, staircases.of_budget(self.budgets, budget, searched))
            valid = evaluate(smaller, self.valid, self.processes)
            result = FitResult(valid, [], trained["epochs"], trained["seconds"])
            kept, full = smaller.num_kept(), dense.num_values()
            self.files.save(f"budgets/{label}", smaller, name, self.compact_options)
            entry = self._entry(
                f"{ELASTIC} {label}", smaller, result, {"kept_parameters": kept, "sparsity": 1 - kept / full}
            )
            self.files.remember(compact={**self.state.get("compact", {}), label: entry})

    def _rank(self) -> None:
        contexts = Contexts.of(self.dataset, "test")
        for label in (None, *self.state["compact"]):
            folder = self.folder / ("dense" if label is None else f"budgets/{label}")
            recommender = load_recommender(folder, self.info).to(self.device)
            ranked.remember(self.files, label, recommender, contexts, self.progress)

    def metrics(self) -> dict[str, Any]:
        """Write ``metrics.json``: the largest budget stands under ``compact``, all under ``budgets``."""
        compact = self.state["compact"]
        best = max(compact, key=lambda label: compact[label]["kept_parameters"])
        data = self.dataset
        metrics = {
            "dataset": self.config.data.name,
            "model": self.config.model.name,
            "method": self.config.compact.sizes.name,
            "seed": self.config.run.seed,
            "device": str(self.device),
            "processes": self.processes.size,
            "rows": {"train": len(data.train), "valid": len(data.valid), "test": len(data.test)},
            "dense": self.state["dense"],
            "compact": compact[best],
            "search": {key: value for key, value in self.state["search"].items() if key != "found"},
            **({ELASTIC: self.state[ELASTIC]} if ELASTIC in self.state else {}),
            "budgets": compact,
            "history": self.state["history"],
        }
        self.files.finish(metrics, self.dataset if self.config.run.test else None)
        return metrics
