"""The largest bundle that fits, found with few measurements; and an elastic run exported at any budget."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.bundle.fitting import MAX_EXPORTS, largest_fitting
from ondevice.config.file import from_dict
from ondevice.errors import UserError
from ondevice.program.bundle import load_bundle
from ondevice.program.export import ExportOptions
from ondevice.program.export_run import export_run, table_lines
from ondevice.run.directory import Run
from ondevice.run.elastic import compact_model
from ondevice.run.pipeline import Pipeline

SMALL = ExportOptions(methods=("forward",))


def test_a_constant_error_of_the_estimate_takes_two_measurements() -> None:
    asked: list[int] = []

    def measured(target: int) -> int:
        asked.append(target)
        return 1000 + 3 * target

    assert largest_fitting(4000, range(1, 5001), lambda target: 1300 + 3 * target, measured) == 1000
    assert asked == [900, 1000]
    asked.clear()
    assert largest_fitting(4000, range(1, 5001), lambda target: 1003 + 3 * target, measured) == 999
    assert asked == [999]  # three bytes are not worth another


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=40),
    st.lists(st.integers(-40, 40), min_size=40, max_size=40),
    st.integers(-10, 999),
)
def test_what_is_found_fits_and_nothing_that_fits_is_overlooked_altogether(
    steps: list[int], errors: list[int], limit: int
) -> None:
    real = [sum(steps[: i + 1]) for i in range(len(steps))]
    count = 0

    def measured(target: int) -> int:
        nonlocal count
        count += 1
        return real[target - 3]

    targets = range(3, 3 + len(real))
    result = largest_fitting(limit, targets, lambda t: real[t - 3] + errors[t - 3], measured)
    assert count <= MAX_EXPORTS
    if result is not None:
        assert real[result - 3] <= limit
    elif count < MAX_EXPORTS:
        assert real[0] > limit
    exact = largest_fitting(limit, targets, lambda t: real[t - 3] + 7, lambda t: real[t - 3])
    fitting = [t for t in targets if real[t - 3] <= limit]
    assert exact == (fitting[-1] if fitting else None)


@pytest.fixture(scope="module")
def run(
    table_files: tuple[Path, Path], session_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A finished elastic run."""
    folder = tmp_path_factory.mktemp("runs") / "elastic"
    schema, path = table_files
    training = {"epochs": 1, "batch_size": 128, "learning_rate": 0.01}
    values: dict[str, Any] = {
        "data": {"name": "table", "schema": str(schema), "path": str(path)},
        "model": {"name": "fm"},
        "embedding": {"dim": 8},
        "train": training,
        "compact": {
            "budgets": [500, 100],
            "endpoints": ["forward"],
            "sizes": "frequency",
            "train": {**training, "elastic": True},
        },
        "run": {"device": "cpu", "progress": False},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(session_cache))
        Pipeline(from_dict(values), folder).run()
        yield folder


def test_an_elastic_run_is_cut_to_any_budget(run: Path, tmp_path: Path) -> None:
    """Between the two budgets of the training: the largest part whose real bytes fit, and no training."""
    small, large = export_run(run, labels=["100", "500"], output=tmp_path / "labels")
    between = (small.bundle.total_bytes + large.bundle.total_bytes) // 2
    (cut,) = export_run(run, budgets=[f"{between}B"], output=tmp_path / "cut")
    assert small.bundle.total_bytes <= cut.bundle.total_bytes <= between
    assert cut.parity["eager_vs_packed"] < 1e-5
    assert cut.parity["test_auc_pte"] == pytest.approx(cut.parity["test_auc_eager"], abs=5e-3)
    opened = load_bundle(tmp_path / "cut")
    assert set(opened.manifest["methods"]) == {"forward"}  # those of the run
    label = opened.manifest["name"].removeprefix("tiny-fm-frequency-")
    again = compact_model(Run(run), label)
    assert small.recommender.num_kept() <= again.num_kept() < large.recommender.num_kept()
    assert again.num_kept() == cut.recommender.num_kept()
    assert cut.shortfall is None
    (whole,) = export_run(run, budgets=["1MB"], output=tmp_path / "whole", options=SMALL, check=False)
    assert whole.shortfall is not None
    assert "% below" in whole.shortfall
    assert table_lines([whole])[1].endswith(whole.shortfall)


def test_a_budget_below_the_smallest_part_names_its_bytes(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"--budget 3KB: the smallest bundle of .* with \d,\d{3} bytes \(model\.pte"
    ):
        export_run(run, budgets=["3KB"], output=tmp_path / "none", options=SMALL, check=False)
    assert not (tmp_path / "none").exists()
