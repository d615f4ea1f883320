"""The main job: dense model, search, retraining of each budget, tests, in a resumable run directory."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load as load_safetensors

from benchmarks.pep_step import step_time_ratio
from ondevice.config.budget import budget_label
from ondevice.config.sections import TrainingConfig
from ondevice.forms.base import Form, Sizes, form_of_tensors, form_tensors
from ondevice.forms.codes import CodedEmbedding
from ondevice.methods import METHODS
from ondevice.methods.code_search import CodeSearch, Samples, turn_to_codes
from ondevice.methods.gains import measure_gains
from ondevice.methods.search import Search
from ondevice.methods.sizes.code_saliency import CodeSaliency
from ondevice.methods.sizes.saliency import Saliency
from ondevice.methods.sizing import all_codes, forms_at, skipped
from ondevice.models import MODELS
from ondevice.recommender import Recommender
from ondevice.run.elastic import ELASTIC, LEVELS, Cutter, ElasticFit
from ondevice.run.levels import Staircases, load_staircases, save_staircases
from ondevice.run.prepared import PreparedRun
from ondevice.training import qat
from ondevice.training.batches import Batches
from ondevice.training.checkpoint import load_recommender, tensors_of
from ondevice.training.fit import Fit, FitResult, count_parameters, evaluate
from ondevice.training.norm import synced
from ondevice.training.teacher import Teacher, make_teacher, own_teacher

SEARCHED = "searched"
"""Folder of the compact model with free values that a ranking of codes was measured in."""


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
        if self.config.retrain.elastic:
            self.elastic(targets, forms, dense)
        else:
            for budget, target in targets.items():
                self.retrain(budget, forms[target], target, dense)
        metrics = self.metrics()
        self.progress.close()
        return metrics

    def targets(self) -> dict[int | str, int]:
        """For each budget, the number of values at which the search stops."""
        return {budget: self.budgets.search_target(budget) for budget in self.config.search.budgets}

    def _fit(
        self,
        phase: str,
        recommender: Recommender,
        settings: TrainingConfig,
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
            teacher=self._teacher(settings, train, dense),
            processes=self.processes,
        )
        return fit.run()

    def _teacher(self, settings: TrainingConfig, train: Batches, dense: Recommender | None) -> Teacher | None:
        if not settings.teacher:
            return None
        models = []
        for name in settings.teacher:
            number = own_teacher(name)
            if number is None:
                models.append(self._other_dense(name))
            elif number:
                models.append(self._further_dense(number))
            else:
                assert dense is not None  # `check_options` lets no dense model be its own teacher
                models.append(dense)
        return make_teacher(
            settings,
            models,
            self.info,
            train,
            self.valid,
            tuple(self.dataset.schema.item_fields),
            skip=() if settings is self.config.training else self.skip,
            processes=self.processes,
            say=self.progress.say,
        )

    def dense(self) -> Recommender:
        """The dense model: trained, or read back."""
        folder = self.folder / "dense"
        if "dense" not in self.state:
            recommender = self._fresh("uniform", {}, None)
            result = self._fit("dense", recommender, self.config.training, None)
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
            result = self._fit("dense", recommender, self.config.training, None, seed)
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

    def search(self, dense: Recommender, targets: list[int]) -> dict[int, list[Form]]:
        """The forms at each target: found, or read back."""
        path = self.folder / "search.safetensors"
        if "search" not in self.state or not set(targets) <= {
            int(t) for t in self.state["search"]["targets"]
        }:
            initial = self._searching()
            self.files.write("initial.safetensors", tensors_of(initial))
            started = time.perf_counter()
            needs = METHODS[self.config.method.name].needs
            history: list[dict[str, float]] = []
            ratio: float | None = None
            if needs == "search":
                synced(initial, self.processes)
                search = Search(
                    initial,
                    self.train_batches(self.config.search.batch_size),
                    self.valid,
                    self.config.search,
                    targets,
                    seed=self.config.run.seed,
                    progress=self.progress,
                    checkpoint=self.files.checkpoint("search"),
                    processes=self.processes,
                )
                result = search.run()
                forms, history, seconds = result.forms, result.history, result.seconds
                if self.processes.size == 1:  # steps of several processes wait for one another
                    ratio = self._step_time(initial)
            else:
                if needs == "training":
                    for table, trained in zip(initial.tables(), dense.tables(), strict=True):
                        table.weight.data.copy_(trained.table())
                if needs == "gradients":
                    self._measure(initial, dense)
                if needs == "compact":
                    history = self._measure_codes(initial, dense)
                removed = (self.info.counts == 0) | skipped(self.info, self.skip)
                rows = self.config.retrain.first_order == "rows"
                forms = {target: forms_at(initial.tables(), target, removed, rows) for target in targets}
                seconds = time.perf_counter() - started
            content = {
                name: value
                for t, fs in forms.items()
                for i, f in enumerate(fs)
                for name, value in form_tensors(f, f"{t}/{i}").items()
            }
            self.files.write("search.safetensors", content)
            entry = {
                "seconds": round(seconds, 2),
                "step_time_over_dense": ratio,
                "targets": [str(t) for t in targets],
            }
            self.files.remember(search=entry, history={**self.state["history"], "search": history})
            self.files.forget("search")
        stored = load_safetensors(path.read_bytes())
        tables = 2 if MODELS[self.config.model.name].uses_first_order else 1
        ruled = METHODS[self.config.method.name].needs in ("nothing", "gradients", "compact")
        found: dict[int, list[Form]] = {}
        for target in targets:
            dims = (self.config.embedding.dim, 1)
            cost = float(self.config.method.options.get("row_cost", 0.0))
            found[target] = [
                form_of_tensors(stored, f"{target}/{i}", dims[i], ruled, cost) for i in range(tables)
            ]
        return found

    def _measure(self, searching: Recommender, dense: Recommender) -> None:
        """Let the dense model say what dimensions are worth, for methods that rank by that."""
        table = searching.embedding
        assert isinstance(table, Saliency)
        table.gains = measure_gains(
            dense,
            self.train_batches(self.config.search.batch_size),
            tuple(self.dataset.schema.item_fields),
            num_dims=table.max_size,
            pairs=table.pairs,
            seed=self.config.run.seed,
        )

    def _measure_codes(self, searching: Recommender, dense: Recommender) -> list[dict[str, float]]:
        """Train a compact model with free values, and let it say what codes are worth; the training's history."""
        settings, table = self.config.retrain, searching.embedding
        assert isinstance(table, CodeSaliency)
        values, codes = all_codes(self.info, self.skip, settings, table.embedding_dim)
        weights = settings.first_order == "rows" and searching.first_order is not None
        others: list[Form] = [Sizes((codes.sizes > 0).long(), 1)] if weights else []
        free = self._rebuilt(self.info, [values, *others], None)
        training = dataclasses.replace(settings, epochs=self.config.search.epochs)
        result = self._fit("search", free, training, dense)
        turned = turn_to_codes(free, codes.code_dims)
        self.files.save(SEARCHED, free, self.config.compact_model.name, self.compact_options)
        self.files.remember(turned=turned)
        train = self.train_batches(settings.batch_size)
        samples = Samples(train, self._teacher(settings, train, dense), self.config.run.seed)
        with self.processes.same_draws(0):
            whole = self._rebuilt(self.info, [codes, *others], free).eval()
            table.gains = CodeSearch(whole, samples, self.processes).gains().cpu()
        return result.history

    def _step_time(self, searching: Recommender) -> float:
        """PEP's step over the dense step, both on the same batches, steps interleaved."""
        torch.manual_seed(self.config.run.seed)
        plain = self._fresh("uniform", {}, None)
        batches = self.train_batches(self.config.search.batch_size)
        return step_time_ratio(searching, plain, batches, self.config.search)

    def _start(self, forms: list[Form]) -> Recommender:
        """The compact recommender that a retraining begins with."""
        initial, start = None, self.config.retrain.start
        ranked = start == "initial" and METHODS[self.config.method.name].needs == "compact"
        if ranked:  # it begins with the model that its codes were ranked in
            initial = load_recommender(self.folder / SEARCHED, self.info).to(self.device)
        elif start == "initial":
            initial = self._searching()
            initial.load_state_dict(load_safetensors((self.folder / "initial.safetensors").read_bytes()))
        elif start == "dense":
            initial = self.dense()
        recommender = self._rebuilt(self.info, forms, initial)
        if ranked and isinstance(recommender.embedding, CodedEmbedding):
            recommender.embedding.is_turned = self.state["turned"]
        return recommender

    def retrain(self, budget: int | str, forms: list[Form], target: int, dense: Recommender) -> None:
        """Train the compact model of one budget."""
        label = budget_label(budget)
        if label in self.state.get("compact", {}):
            return
        settings = self.config.retrain
        forms = self.budgets.forms(budget, target, forms)
        recommender = self._start(forms)
        phase = f"retrain-{label}"
        kept, full = recommender.num_kept(), dense.num_values()
        self.progress.say(
            f"{phase}: {kept:,} of {full:,} values kept, {int(sum(forms[0].row_sizes() > 0)):,} rows"
        )
        qat.prepare(recommender.model, settings.linear_bits)
        result = self._fit(phase, recommender, settings, dense)
        qat.finish(recommender.model)
        self.files.save(f"budgets/{label}", recommender, self.config.compact_model.name, self.compact_options)
        self._finish(phase, recommender, result, {"kept_parameters": kept, "sparsity": 1 - kept / full})
        entry = self.state.pop(phase)
        history = self.state["history"]
        history[label] = history.pop(phase)
        self.files.remember(compact={**self.state.get("compact", {}), label: entry}, history=history)

    def elastic(
        self, targets: dict[int | str, int], found: dict[int, list[Form]], dense: Recommender
    ) -> None:
        """Train the largest compact model so that the others are parts of it, and cut these from it."""
        settings, folder, name = self.config.retrain, self.folder / ELASTIC, self.config.compact_model.name
        cutter = Cutter(name, self.compact_options, self.dataset, settings)
        if ELASTIC not in self.state:
            staircases = Staircases.of_budgets(self.budgets, [(b, t, found[t]) for b, t in targets.items()])
            recommender = self._start(staircases.levels[0].forms)
            each = ", ".join(f"{sum(f.num_kept() for f in level.forms):,}" for level in staircases.levels)
            self.progress.say(f"{ELASTIC}: {each} of {dense.num_values():,} values kept")
            qat.prepare(recommender.model, settings.linear_bits)
            kind = functools.partial(ElasticFit, staircases=staircases, cutter=cutter)
            result = self._fit(ELASTIC, recommender, settings, dense, kind=kind)
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

    def metrics(self) -> dict[str, Any]:
        """Write ``metrics.json``: the largest budget stands under ``compact``, all under ``budgets``."""
        compact = self.state["compact"]
        best = max(compact, key=lambda label: compact[label]["kept_parameters"])
        data = self.dataset
        metrics = {
            "dataset": self.config.data.name,
            "model": self.config.model.name,
            "method": self.config.method.name,
            "seed": self.config.run.seed,
            "device": str(self.device),
            "processes": self.processes.size,
            "rows": {"train": len(data.train), "valid": len(data.valid), "test": len(data.test)},
            "dense": self.state["dense"],
            "compact": compact[best],
            "search": self.state["search"],
            **({ELASTIC: self.state[ELASTIC]} if ELASTIC in self.state else {}),
            "budgets": compact,
            "history": self.state["history"],
        }
        self.files.finish(metrics)
        return metrics
