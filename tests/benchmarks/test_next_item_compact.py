"""The careful opponent of compact models of the next item: configurations that train, and ratios by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.next_item_compact import beside, careful_config, main, picture, smallest_within
from ondevice.config.file import load
from ondevice.errors import UserError
from ondevice.files import atomic_json
from ondevice.run.directory import Run
from ondevice.run.preflight import check_options

CONFIG = Path(__file__).resolve().parents[2] / "train" / "configs" / "movielens_1m_next_item_compact.yaml"


class Finished(Run):
    """A run of which the configuration alone is known."""

    def __init__(self, path: Path) -> None:
        self.path, self.config, self.data = path, load(CONFIG, ["compact.teach.teachers=[dense]"]), {}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dim", [8, 64])
def test_a_careful_program_differs_in_its_table_alone(dim: int, bits: int, tmp_path: Path) -> None:
    run = Finished(tmp_path)
    run.config = replace(run.config, research=replace(run.config.research, start="initial"))
    config = careful_config(run, dim, bits)
    check_options(config)
    compact, ours = config.compact, run.config.compact
    assert compact.store.max_size == compact.store.size_step == dim
    assert compact.store.linear_bits == ours.store.linear_bits
    assert compact.store.first_order == ours.store.first_order
    assert (compact.train, compact.model) == (ours.train, ours.model)
    assert compact.teach.teachers == (str(tmp_path.resolve()),)  # the run's dense model
    assert (compact.store.codes is None) == (bits == 8)


def test_the_smallest_that_is_good_enough() -> None:
    points = [
        {"name": "a", "bytes": 30, "valid_ndcg@10": 0.096, "test_ndcg@10": 0.2},
        {"name": "b", "bytes": 50, "valid_ndcg@10": 0.0995, "test_ndcg@10": 0.1},
        {"name": "c", "bytes": 90, "valid_ndcg@10": 0.099, "test_ndcg@10": 0.3},
    ]
    assert [entry["bytes"] for entry in smallest_within(points, 0.1)] == [None, 50, 50, 30]
    ours = {"name": "o", "bytes": 40, "valid_ndcg@10": 0.0985, "test_ndcg@10": 0.21}
    assert beside(ours, points) == {
        "name": "o",
        "as_good": "b",
        "times_smaller": 1.25,
        "as_small": "a",
        "better_by": pytest.approx(0.01),
    }
    assert beside({**ours, "bytes": 20, "valid_ndcg@10": 0.2}, points) == {"name": "o"}


def test_the_picture_is_one() -> None:
    pytest.importorskip("matplotlib")
    point = {"bytes": 40_000, "test_ndcg@10": 0.15}
    drawn = picture([{"ours": [point], "careful": [point]}], [{"name": "sasrec, fp32", "test_ndcg@10": 0.17}])
    assert drawn.startswith(b"\x89PNG")


def test_a_careful_program_begins_with_a_dense_model_of_its_dimension(tmp_path: Path) -> None:
    """Where ours begins with a dense one; it is trained for as many epochs, those of the search among them."""
    run = Finished(tmp_path)
    run.config = load(CONFIG, ["model.dropout=0.3", "compact.teach.teachers=[dense]"])
    assert (run.config.research.start, run.config.compact.sizes.epochs) == ("dense", 3)
    ours, config, same = run.config, careful_config(run, 32, 4), careful_config(run, 64, 4)
    for each in (config, same):
        check_options(each)
        assert each.compact.train.epochs == ours.compact.train.epochs + 3
        assert (each.train, each.teach) == (ours.train, ours.teach)
    assert (config.embedding.dim, config.research.start) == (32, "dense")
    wide = {**ours.compact_model.options, "width": 64}
    assert (config.model.options, config.compact_model.options) == ({**wide, "dropout": 0.3}, wide)
    assert (same.embedding.dim, same.research.start) == (64, str(tmp_path.resolve()))
    assert same.model == ours.model


def test_an_opponent_of_a_seed_that_no_run_has_is_refused(tmp_path: Path) -> None:
    """It would stand beside nothing."""
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "config.yaml").write_bytes(CONFIG.read_bytes())
        atomic_json(folder / "metrics.json", {"task": "next_item", "seed": seed, "budgets": {}})
    with pytest.raises(UserError, match="is of seed 1; the runs beside it are of 0"):
        main([str(tmp_path / "0"), "--careful", "--also", str(tmp_path / "1")])
