"""From a run directory to bundles: what ``export/to_pte.py`` and the library's users call."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ondevice import memory
from ondevice.bundle.fitting import largest_fitting
from ondevice.bundle.manifest import CATALOG, COST, MANIFEST, PROGRAM, VOCABULARY, check_replaceable
from ondevice.bundle.vocabulary_file import vocabulary_bytes
from ondevice.config.budget import budget_label, elastic_label, elastic_target, parse_budget
from ondevice.data.sources import say
from ondevice.errors import BudgetTooSmall, UserError
from ondevice.files import atomic_json
from ondevice.program.export import Exported, ExportOptions, Reading, export_packed, pack_for
from ondevice.program.pack import PackedRecommender
from ondevice.program.targets import shipped
from ondevice.recommender import Recommender
from ondevice.run.budgets import shortfall
from ondevice.run.directory import Run
from ondevice.run.elastic import ElasticRun


def export_run(
    path: str | Path,
    *,
    budgets: Sequence[str] = (),
    labels: Sequence[str] = (),
    output: str | Path | None = None,
    options: ExportOptions = ExportOptions(),
    check: bool = True,
    data: Mapping[str, Any] | None = None,
) -> list[Exported]:
    """Export compact models of a run directory.

    Args:
        path: the run directory.
        budgets: bytes of the whole bundle (``64KB``); for each, the largest compact model that fits, cut to measure
            where the run is elastic.
        labels: compact models to export, by label; with neither, all of them.
        output: where to write: the directory of a single bundle, or of one directory per bundle. By default
            ``bundles/<label or budget>`` in the run directory.
        options: layout, quantization, methods.
        check: compare eager model and program over the whole test split; left out, and said so, where the data
            cannot be found.
        data: options that say where the data are now.

    Raises: UserError: when a budget cannot be met, naming the smallest bundle.
    """
    run = Run(path, data)
    exporter = _RunExporter(run, options, check)
    if not exporter.labels:
        raise UserError(f"{path}: holds no compact model yet; finish the training with --resume")
    if not labels and not budgets:
        labels = exporter.labels
    base = Path(output) if output is not None else run.path / "bundles"
    names = [*labels, *(str(budget).replace(" ", "") for budget in budgets)]
    places = [base] if output is not None and len(names) == 1 else [base / name for name in names]
    for place in places:
        check_replaceable(place)  # before the minutes that exporting takes
    made = [*map(exporter.export, labels), *map(exporter.fitting, budgets)]
    trained = {budget_label(budget): budget for budget in run.config.compact.budgets}
    cut = exporter.elastic is not None
    asked = [trained.get(label) for label in labels]
    asked += [budget if cut else trained.get(budget_label(budget)) for budget in budgets]
    results = []
    for place, exported, budget in zip(places, made, asked, strict=True):
        written = exported.bundle.write(place)
        if exported.cost:
            atomic_json(written.path / COST, exported.cost)
        size = written.needed_bytes
        sizes = exported.recommender.forms()[0].row_sizes()
        unused = None if budget is None else shortfall(budget, size, sizes)
        results.append(dataclasses.replace(exported, bundle=written, shortfall=unused))
    return results


class _RunExporter:
    def __init__(self, run: Run, options: ExportOptions, check: bool) -> None:
        compact, bits = run.config.compact, options.fingerprint_bits
        self.run = run
        self.options = dataclasses.replace(
            options,
            methods=options.methods or compact.endpoints,
            fingerprint_bits=compact.store.fingerprint_bits if bits is None else bits,
        )
        self.elastic = ElasticRun(run) if compact.train.elastic else None
        self.labels = run.budgets()
        self.metrics = run.metrics
        self.dataset = run.dataset(rows=False)
        self.check = check and not self.dataset.excerpt
        if self.dataset.excerpt and check:
            say(
                f"{run.path}: the data are not where they were, so the programs are not compared over the test split; "
                "say where they are now with data.path=…"
            )
        self.exported: dict[str, Exported] = {}
        self.recommenders: dict[str, Recommender] = {}

    def recommender(self, label: str) -> Recommender:
        if label not in self.recommenders:
            target = elastic_target(label)
            if self.elastic is not None and target is not None:
                self.recommenders[label] = self.elastic.compact(target)
            else:
                self.recommenders[label] = self.run.compact(label)
        return self.recommenders[label]

    def pack(self, label: str) -> PackedRecommender:
        return pack_for(self.recommender(label), self.dataset, self.options)

    def export(self, label: str, *, check: bool | None = None) -> Exported:
        check = self.check if check is None else check
        if label not in self.exported:
            model, method = self.run.config.compact_model.name, self.metrics["method"]
            recommender = self.recommender(label)
            figures = self.metrics.get("budgets", {}).get(label, {})
            if self.elastic is not None and not figures and not self.dataset.excerpt:
                figures = {"valid_auc": self.elastic.valid(recommender)["auc"]}
            metrics = {
                key: round(figures[key], 5)
                for key in ("valid_auc", "test_auc")
                if figures.get(key) is not None
            }
            name = f"{self.dataset.schema.name}-{model}-{method}-{label}"
            shipped().load_exporter()
            began = Reading(time.perf_counter(), memory.settle(()))
            packed = self.pack(label)  # a part of what is measured
            made = export_packed(
                recommender, packed, self.dataset, name, model, method, metrics, self.options, check
            )
            if made.done is not None:
                values = self.dataset.vocabulary.num_embeddings * self.run.config.embedding.dim
                made.cost = export_cost(began, made.done, 4 * values)
            self.exported[label] = made
        exported = self.exported[label]
        if check and not exported.parity:
            exported.measure_parity(self.dataset)
        return exported

    def fitting(self, budget: str) -> Exported:
        """The largest compact model whose bundle fits the budget."""
        unit, limit = parse_budget(budget)
        if unit != "bytes":
            raise UserError(f"--budget {budget}: give the bytes of the whole bundle, such as 64KB or 1.5MB")
        if self.elastic is not None:
            return self._cut_to(budget, int(limit), self.elastic)
        for label in self.labels:
            if self._least_bytes(label) <= limit and self.export(label).bundle.needed_bytes <= limit:
                return self.exported[label]
        smallest = min(
            (self.export(label) for label in self.labels[-1:]), key=lambda e: e.bundle.needed_bytes
        )
        raise BudgetTooSmall(
            f"--budget {budget}: {self._described(smallest)}; train a smaller one with compact.budgets=[...] "
            "or fewer or no hidden layers, or leave out a method with --methods forward"
        )

    def _cut_to(self, budget: str, limit: int, elastic: ElasticRun) -> Exported:
        """The largest part of an elastic model whose bundle fits, found on the bytes of real exports."""

        def estimated(target: int) -> int:
            return elastic.estimated_bytes(target, self.options.methods)

        def measured(target: int) -> int:
            return self.export(elastic_label(target), check=False).bundle.needed_bytes

        least = elastic.least_target()
        best = largest_fitting(limit, range(least, elastic.largest_target() + 1), estimated, measured)
        if best is None:
            smallest = self._described(self.export(elastic_label(least), check=False))
            raise BudgetTooSmall(
                f"--budget {budget}: {smallest}, with one row left in its tables; train with fewer or no hidden "
                "layers, or leave out a method with --methods forward"
            )
        return self.export(elastic_label(best))

    def _described(self, smallest: Exported) -> str:
        """Which bundle is the smallest, and what its bytes are."""
        sizes = smallest.bundle.file_bytes()
        parts = ", ".join(f"{name} {sizes[name]:,}" for name in (PROGRAM, VOCABULARY, MANIFEST))
        return (
            f"the smallest bundle of {self.run.path} is '{smallest.label}' with "
            f"{smallest.bundle.needed_bytes:,} bytes ({parts})"
        )

    def _least_bytes(self, label: str) -> int:
        """A bound below the bundle's bytes that needs no export: tables and vocabulary."""
        packed = self.pack(label)
        shrinks = 1 if self.options.quantization == "int8" else 4
        tables = sum(table.stored_bytes() for table in packed.tables())
        return tables // 4 * shrinks + vocabulary_bytes(packed.order.field_keys)


def export_cost(began: Reading, done: Reading, dense_table_bytes: int) -> dict[str, float]:
    """Seconds and memory from a trained model to a bundle, with the exporter's libraries loaded before.

    ``added_rss_bytes`` is the peak over what was resident before, ``over_dense_table`` its ratio to the bytes of the
    dense float32 embeddings.
    """
    added = done.memory["peak"] - began.memory["resident"]
    return {
        "seconds": round(done.seconds - began.seconds, 2),
        "added_rss_bytes": added,
        "dense_table_bytes": dense_table_bytes,
        "over_dense_table": round(added / dense_table_bytes, 2),
    }


def table_lines(exported: Sequence[Exported]) -> list[str]:
    """A short table of bundles, a line each; ``bytes`` is what a budget counts, the titles stand apart."""
    head = ("bundle", "bytes", "model.pte", "vocabulary", "manifest", "test AUC", "eager", "titles")
    lines = ["{:>12} {:>9} {:>10} {:>11} {:>9} {:>9} {:>7} {:>9}".format(*head)]
    for each in exported:
        sizes = each.bundle.file_bytes()
        auc = each.parity.get("test_auc_pte")
        eager = each.parity.get("test_auc_eager")
        lines.append(
            f"{each.bundle.path.name:>12} {each.bundle.needed_bytes:>9,} {sizes[PROGRAM]:>10,} "
            f"{sizes[VOCABULARY]:>11,} {sizes[MANIFEST]:>9,} "
            f"{'-' if auc is None else format(auc, '.4f'):>9} {'-' if eager is None else format(eager, '.4f'):>7} "
            f"{sizes.get(CATALOG, 0):>9,}"
            f"{'' if each.shortfall is None else '  ' + each.shortfall}"
        )
    return lines


def part_lines(exported: Exported) -> list[str]:
    """What a bundle's bytes hold, largest first; then what its keys take, and what making it took."""
    parts = sorted(exported.byte_parts().items(), key=lambda part: -part[1])
    lines = [f"{name:>16} {size:>9,}" for name, size in parts]
    sizes, keys = exported.bundle.file_bytes(), exported.bundle.vocabulary.num_keys()
    if keys:
        lines.append(
            f"{keys:,} keys: {sizes[VOCABULARY] / keys:.2f} bytes of vocabulary and "
            f"{exported.bundle.needed_bytes / keys:.2f} bytes of bundle each; the vocabulary is "
            f"{sizes[VOCABULARY] / exported.bundle.needed_bytes:.0%} of the bundle"
        )
    cost = exported.cost
    if cost:
        lines.append(
            f"made in {cost['seconds']:.1f} s with {cost['added_rss_bytes'] / 1e6:.0f} MB, "
            f"{cost['over_dense_table']:.1f}× the dense fp32 embeddings"
        )
    return lines
