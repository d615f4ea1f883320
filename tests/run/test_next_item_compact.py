"""Compact models of the next item: taught, in codes, within a budget, killed and resumed; packed they are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ondevice.bundle.item_rows import fixed_bytes, next_item_bytes
from ondevice.config.file import from_dict, load
from ondevice.config.sections import Config
from ondevice.errors import BudgetTooSmall, ConfigError, DataError, UserError
from ondevice.forms.sizes import Sizes
from ondevice.models.sequences.sasrec import SASRec
from ondevice.program.next_item import pack
from ondevice.program.next_item_export import program_contexts, program_histories
from ondevice.run.directory import Run
from ondevice.run.next_item import NextItemPipeline, load_run, table_lines
from ondevice.run.next_item_compact import NextItemCompact
from ondevice.run.preflight import check_options
from ondevice.training.fit import Fit
from ondevice.training.windows import Log, Moments

from ..runs import lasting

CONFIG = Path(__file__).resolve().parents[2] / "train" / "configs" / "movielens_1m_next_item_compact.yaml"
SMALL = (
    *("embedding.dim=4", "train.epochs=2", "run.progress=false", "run.device=cpu", "train.batch_size=32"),
    *("compact.train.epochs=3", "compact.sizes.epochs=1", "compact.train.batch_size=32"),
    *("compact.store.max_size=8", "compact.store.code_dims=2", "compact.store.size_step=2"),
    *("compact.model.width=6", "compact.model.hidden=8", "embedding.dim=8", "model.name=sasrec"),
    *(
        "research.start=initial",
        "compact.store.code_choice=loss",
        "compact.teach={teachers: [dense], pairs: 0.5}",
    ),
)


def small(folder: Path, *overrides: str) -> Config:
    return load(CONFIG, [f"data.folder={folder}", *SMALL, "compact.budgets=[26KB]", *overrides])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ..conftest import write_movielens

    return write_movielens(tmp_path_factory.mktemp("data") / "ml")


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two budgets, in codes of two levels, taught by its dense model."""
    place = tmp_path_factory.mktemp("compact")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(place / "cache"))
        NextItemPipeline(small(folder), place / "run").run()
        yield place / "run"


def test_the_budget_is_kept_by_the_estimate(run: Path) -> None:
    metrics = Run(run).metrics
    assert list(metrics["budgets"]) == ["26KB"]
    entry = metrics["budgets"]["26KB"]
    assert entry["estimated_bytes"] <= 26_000
    assert entry["parameters"] < metrics["dense"]["parameters"]
    assert metrics["history"]["search"]
    assert [point["final"] for point in metrics["history"]["26KB"]] == [True, True, True] or not all(
        point["final"] for point in metrics["history"]["26KB"]
    )
    page = (run / "report.html").read_text()
    assert "26KB" in page
    assert any(line.startswith("26KB, test split") for line in table_lines(metrics))


def test_packed_it_is_the_eager_one(run: Path) -> None:
    made, dataset = load_run(Run(run), "26KB")
    assert made.first_order is None
    assert made.embedding.learns_codes
    packed = pack(made, dataset)
    moments = Moments.of(Log.of(dataset), "test", made.model.last)
    histories = torch.cat([moments.histories[:5], torch.zeros(1, made.model.last, dtype=torch.int64)])
    rows, every = program_histories(packed, histories), torch.arange(packed.num_rows).unsqueeze(1)
    assert packed.num_rows == made.num_items  # none without a row
    places = torch.from_numpy(packed.order.ids - packed.order.ids.min())
    with torch.no_grad():
        scores = torch.stack([packed(row[None], every) for row in rows])
        torch.testing.assert_close(scores, made(histories)[:, places], rtol=1e-4, atol=1e-4)


def test_another_budget_is_added_to_a_finished_run(run: Path, folder: Path) -> None:
    before = lasting(Run(run).metrics["budgets"]["26KB"])
    metrics = NextItemPipeline(small(folder, "compact.budgets=[26KB,25KB]"), run, resume=True).run()
    assert set(metrics["budgets"]) == {"26KB", "25KB"}
    assert lasting(metrics["budgets"]["26KB"]) == before
    assert metrics["budgets"]["25KB"]["estimated_bytes"] <= 25_000


def test_a_killed_run_goes_on_with_equal_numbers(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From teachers that are another run's, so that no dense model is trained."""
    config = small(folder, f"compact.teach.teachers=[{run}]", "compact.sizes=frequency")
    whole = NextItemPipeline(config, tmp_path / "whole").run()
    assert "dense" not in whole
    original = Fit._one_epoch

    def killed(self: Fit) -> None:
        if self.epoch == 2:
            raise KeyboardInterrupt
        original(self)

    monkeypatch.setattr(Fit, "_one_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        NextItemPipeline(config, tmp_path / "cut").run()
    monkeypatch.setattr(Fit, "_one_epoch", original)
    again = NextItemPipeline(config, tmp_path / "cut", resume=True).run()
    assert lasting(again["budgets"]["26KB"]) == lasting(whole["budgets"]["26KB"])


@pytest.mark.usefixtures("cache")
def test_time_gaps_through_search_and_retraining(folder: Path, tmp_path: Path) -> None:
    """Teacher, codes and program read them; a model says nothing of them itself."""
    name = "compact.model.name=decayed_pooling"
    config = small(folder, "data.gaps=until", "model.name=decayed_pooling", "model.hidden=8", name)
    run = tmp_path / "gaps"
    metrics = NextItemPipeline(config, run).run()
    assert metrics["budgets"]["26KB"]["estimated_bytes"] <= 26_000
    made, dataset = load_run(Run(run), "26KB")
    assert made.model.gaps is not None
    assert bool(made.model.gaps.weight[1:].any())
    assert load_run(Run(run))[0].model.reads_gaps
    packed, moments = pack(made, dataset), Moments.of(Log.of(dataset), "test", made.model.last)
    contexts = program_contexts(packed, moments.histories[:5])
    assert contexts.shape[1] == 2 * made.model.last
    every, places = torch.arange(packed.num_rows).unsqueeze(1), packed.order.ids - packed.order.ids.min()
    with torch.no_grad():
        scores = torch.stack([packed(row[None], every) for row in contexts])
        torch.testing.assert_close(scores, made(moments.histories[:5])[:, places], rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match=r"compact.model.gaps: got True, but that is for the data to say"):
        NextItemPipeline(small(folder, name, "compact.model.gaps=true"), tmp_path / "said").run()


def test_a_dense_model_is_taught(run: Path, folder: Path, tmp_path: Path) -> None:
    sasrec = CONFIG.with_name("movielens_1m_next_item_sasrec.yaml")
    overrides = [f"data.folder={folder}", *SMALL[:5], "model.num_blocks=1", f"teach.teachers=[{run}]"]
    taught = NextItemPipeline(load(sasrec, overrides), tmp_path / "taught").run()
    alone = NextItemPipeline(load(sasrec, overrides[:-1]), tmp_path / "alone").run()
    assert taught["history"]["dense"][0]["train_loss"] != alone["history"]["dense"][0]["train_loss"]


def test_a_teacher_of_other_data_is_refused(run: Path, folder: Path, tmp_path: Path) -> None:
    config = small(folder, f"compact.teach.teachers=[{run}]", "data.max_rows=500")
    with pytest.raises(DataError, match=r"trained on other data or another split"):
        NextItemPipeline(config, tmp_path / "run").run()


def test_a_warm_start_goes_on_where_the_dense_model_ended(run: Path, folder: Path, tmp_path: Path) -> None:
    """All values kept, no step taken: it says what the dense model says, but for a part of the biases of items."""
    model = "compact.model={name: sasrec, last: 50, num_blocks: 1, num_heads: 1, dropout: 0}"
    given = [
        "model.num_blocks=1",
        "model.num_heads=1",
        model,
        f"compact.teach.teachers=[{run}]",
        "research.start=dense",
    ]
    pipeline = NextItemPipeline(small(folder, *given), tmp_path / "run")
    dense, compact = pipeline.dense(), NextItemCompact(pipeline)
    with torch.no_grad():
        dense.first_order.weight[1:].normal_()
    made = compact.rebuilt([Sizes((dense.info.counts > 0).long() * 8, 8)], dense)
    assert made.first_order is None
    biases = dense.biases(dense.items[None])[0]
    moments = Moments.of(pipeline.log, "test", 50)
    with torch.no_grad():
        wanted, scores = dense.eval()(moments.histories), made.eval()(moments.histories)
        left = (scores - wanted)[:, dense.info.counts[1:] > 0]
    assert float(left.std()) < 0.9 * float(biases.detach().std())
    torch.testing.assert_close(left, left[:1].expand_as(left), rtol=1e-3, atol=1e-4)  # alike for everybody


def test_a_budget_that_cannot_be_kept_is_told_in_a_line(folder: Path, run: Path, tmp_path: Path) -> None:
    config = small(folder, f"compact.teach.teachers=[{run}]", "compact.budgets=[4KB]")
    with pytest.raises(
        BudgetTooSmall, match=r"budget 4KB: the program, .* alone take about [\d,]+ bytes; allow"
    ) as e:
        NextItemPipeline(config, tmp_path / "run").run()
    assert "\n" not in str(e.value)


def test_what_is_stored_is_what_is_estimated(run: Path) -> None:
    """A larger table is estimated larger by its bytes, whatever else the program holds."""
    made, dataset = load_run(Run(run), "26KB")
    forms = made.forms()
    info = made.info
    estimate = next_item_bytes(forms, info, made.model, dataset)
    more = forms[0].with_sizes((forms[0].row_sizes() > 0).long() * 2 * forms[0].width)
    cells = int((more.row_sizes() - forms[0].row_sizes()).sum()) // 2
    larger = next_item_bytes([more], info, made.model, dataset)
    assert larger - estimate == pytest.approx(cells, abs=40 + 5 * 40)


def test_a_teacher_that_is_not_there_is_told_before_anything_is_trained(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fit, "_one_epoch", lambda fit: pytest.fail("trained"))
    config = small(folder, f"compact.teach.teachers=[dense, {tmp_path / 'none'}]")
    with pytest.raises(UserError, match=r"teacher .*none: no run directory"):
        NextItemPipeline(config, tmp_path / "run").run()


def test_a_start_of_another_kind_is_refused(run: Path, folder: Path, tmp_path: Path) -> None:
    """The run's dense model is self-attention, what ships a decayed pooling."""
    for start, says in (
        (tmp_path / "none", r"research\.start .*none: no run directory"),
        (run, r"research\.start: .* is a run of SASRec, but compact\.model is decayed_pooling"),
    ):
        assert not (tmp_path / "run").exists()  # one that is not there is told before anything is written
        config = small(folder, f"compact.teach.teachers=[{run}]", f"research.start={start}")
        with pytest.raises(UserError, match=says):
            NextItemPipeline(config, tmp_path / "run").run()


def test_positions_are_estimated_as_they_are_stored(run: Path) -> None:
    """A byte a value, and 12 for the number and the age of a place; the scales of dimensions are the same for all."""
    _, dataset = load_run(Run(run), "26KB")
    few, many = (fixed_bytes(SASRec(64, last=last, num_blocks=1), dataset) for last in (10, 50))
    assert many - few == 40 * (64 + 8 + 4)


def compact(**changes: Any) -> dict[str, Any]:
    return {
        "model": {"name": "sasrec"},
        "train": {"loss": "softmax"},
        "compact": {
            "budgets": ["64KB"],
            "sizes": {"name": "uniform"},
            "train": {"loss": "softmax"},
            **changes,
        },
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (compact(train={"loss": "bpr"}), r"compact\.train\.loss: got bpr, .* use softmax"),
        (compact(sizes={"name": "pep"}), r"compact\.sizes: got pep .*use compact\.sizes=code_saliency, "),
        (compact(sizes={"name": "hashing"}), r"compact\.sizes: got hashing"),
        (
            compact(store={"name": "int8", "first_order": "projection"}),
            r"got projection, .* use none, or rows",
        ),
        (compact(endpoints=["rank"]), r"compact\.endpoints: got .*whose program has rank and recommend"),
        (
            compact(teach={"teachers": ["dense+1"]}),
            r"compact\.teach\.teachers: got dense\+1; .*dense, or folders",
        ),
        (compact(teach={"teachers": [], "pairs": 0.5}), r"compact\.teach\.pairs: .*has no teacher"),
        (compact(store={"name": "int8", "size_step": 1}), r"compact\.model: 'sasrec' does not take"),
        (compact(store={"name": "int8", "fingerprint_bits": 8}), r"compact\.store\.fingerprint_bits: got 8"),
        (compact(train={"loss": "softmax", "item_dropout": 0.1}), r"compact\.train\.item_dropout: got 0\.1"),
        (
            {**compact(), "train": {"loss": "softmax", "item_dropout": 0.1}},
            r"train\.item_dropout: got 0\.1, .*no dense model is trained.* name dense in compact\.teach\.teachers or",
        ),
        (compact(train={"loss": "softmax", "elastic": True}, budgets=["64KB", "32KB"]), r"elastic: got True"),
        (compact(skip_fields=["seen"]), r"compact\.skip_fields: got"),
        (
            {**compact(model={"name": "decayed_pooling", "width": 8}), "research": {"start": "dense"}},
            r"research\.start: got dense, but the dense model is sasrec and compact\.model decayed_pooling",
        ),
        ({**compact(), "research": {"teacher_mean": "logit"}}, r"research\.teacher_mean: got 'logit'"),
        ({**compact(), "research": {"teacher_temperature": 2.0}}, r"teacher_temperature: .*has no teacher"),
        (
            {**compact(teach={"teachers": ["dense"]}), "research": {"teacher_temperature": "fitted"}},
            r"teacher_temperature: fitted is for models of ratings",
        ),
    ],
)
def test_an_option_that_does_not_fit_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        check_options(from_dict(given))
    assert "\n" not in str(error.value)
