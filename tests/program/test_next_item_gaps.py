"""Time gaps through the whole chain: from a log by a program to a bundle that is asked with times."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from ondevice import next_item
from ondevice.bundle.item_rows import next_item_bytes
from ondevice.bundle.manifest import full_schema
from ondevice.bundle.manifest_check import check_entries
from ondevice.data import Dataset, load_dataset
from ondevice.data.gaps import history_buckets
from ondevice.errors import DamagedFile, UserError
from ondevice.program.bundle import Bundle
from ondevice.program.golden import golden_case
from ondevice.program.next_item_export import (
    ExportedNextItem,
    export_model,
    long_golden_moments,
    long_golden_rows,
    parity,
)
from ondevice.run.next_item import item_info
from ondevice.training.windows import Log

from ..conftest import write_movielens

LAST, KINDS = 50, ("since", "until")


@pytest.fixture(scope="module", params=KINDS)
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("gaps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(folder / "cache"))
        return load_dataset(
            "movielens_1m",
            folder=write_movielens(folder / "ml"),
            fields="next_item",
            split="leave_last_out",
            gaps=request.param,
        )


@pytest.fixture(scope="module")
def exported(data: Dataset) -> ExportedNextItem:
    torch.manual_seed(0)
    name = "decayed_pooling"
    options = {"last": LAST, "gaps": True}
    made = next_item.build(item_info(data), model=name, model_options=options, dim=16, init_std=0.3)
    with torch.no_grad():
        for weights in made.model.parameters():
            weights.add_(torch.randn(weights.shape), alpha=0.3)
    return export_model(made.eval(), data, "gaps", name, {}, top_k=12)


@pytest.fixture(scope="module")
def bundle(exported: ExportedNextItem) -> Bundle:
    return exported.bundle


def test_the_program_is_the_model(exported: ExportedNextItem, data: Dataset) -> None:
    measured = parity(exported, Log.of(data))
    assert measured["eager_vs_packed"] < 1e-4
    assert measured["int8_vs_pte_rms"] < 0.008 * measured["score_std"]
    assert measured["lengths"][0] == 0
    (context, *_) = exported.bundle.manifest["methods"]["recommend"]["inputs"]
    assert context["shape"] == ["1", 2 * LAST]


def test_its_bytes_are_those_that_were_estimated(exported: ExportedNextItem, data: Dataset) -> None:
    made = exported.recommender
    forms = [form.without(torch.arange(len(form.row_sizes())) == 0) for form in made.forms()]
    estimate = next_item_bytes(forms, made.info, made.model, data)
    assert estimate == pytest.approx(exported.bundle.needed_bytes, abs=900)


def test_times_say_what_is_recommended(bundle: Bundle, data: Dataset) -> None:
    keys = bundle.item_keys[:4]
    now = 978_300_000
    soon, late = ([now - 50 * age for age in (9, 4, 2, 1)], [now - 9**age for age in (9, 4, 2, 1)])
    near, far = (bundle.recommend(history=keys, times=times, now=now, k=9) for times in (soon, late))
    assert near != far
    assert not {each["item"] for each in near} & set(keys)
    chosen = [each["item"] for each in near][::-1]
    scores = bundle.rank(history=keys, times=soon, now=now, items=chosen)
    assert scores == pytest.approx([each["score"] for each in near][::-1], abs=1e-5)
    among = bundle.recommend(history=keys, times=soon, now=now, among=[*chosen, keys[0]])
    assert [each["item"] for each in among] == chosen[::-1]
    asks_later = bundle.recommend(history=keys, times=soon, now=now + 10**6, k=9)
    assert (asks_later == near) == (data.schema.histories[0].gaps == "since")


def test_gaps_are_those_of_the_known_items_before_the_last_ones_are_taken(
    bundle: Bundle, data: Dataset
) -> None:
    kind = str(data.schema.histories[0].gaps)
    keys = [bundle.item_keys[i % 5] for i in range(60)]
    times = np.cumsum(np.random.default_rng(0).integers(0, 9999, 60)).astype(float)
    expected = history_buckets(times, kind, times[-1] + 7)
    assert bundle.raw.gaps(keys, times.tolist(), times[-1] + 7).tolist() == expected[-LAST:].tolist()
    with_unknown = [*keys[:5], 999_999, *keys[5:]]
    longer = [*times[:5], times[4] + 1, *times[5:]]
    assert bundle.raw.gaps(with_unknown, longer, times[-1] + 7).tolist() == expected[-LAST:].tolist()
    few = bundle.raw.gaps(keys[:2], [None, 5], 8)
    assert few.tolist() == [0] * (LAST - 1) + [0 if kind == "since" else 3]


def test_nobody_has_no_times(bundle: Bundle) -> None:
    shown = bundle.recommend(k=3)
    assert shown == bundle.recommend(history=[], times=[], k=3) == bundle.recommend(history=[], k=3)
    assert shown == bundle.recommend(history=[999_999], times=[5], k=3)


def test_golden_cases_have_times(bundle: Bundle, data: Dataset) -> None:
    empty, short = bundle.manifest["golden"]
    assert (empty["times"], len(short["times"]), sum(empty["gaps"])) == ([], 3, 0)
    assert bundle.check_golden() == 0
    wrong = copy.deepcopy(dict(bundle.manifest))
    wrong["golden"][1]["gaps"][-1] += 1
    with pytest.raises(UserError, match="golden case 2 gives"):
        Bundle(bundle.path, wrong, bundle.contents).check_golden()
    cases, moments = (make(data, (0, 1, 5, 400)) for make in (long_golden_rows, long_golden_moments))
    assert len(cases) == len(moments)
    longest = golden_case(bundle, cases[-1], moments[-1])
    assert sum(gap > 0 for gap in longest["gaps"]) >= len(cases[-1]["seen"]) - 1 > 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda golden: golden.pop("gaps"), "gaps"),
        (lambda golden: golden["gaps"].append(1), "gaps"),
        (lambda golden: golden.update(gaps=[32] * LAST), "gaps"),
        (lambda golden: golden.update(times=["x"]), "times"),
        (lambda golden: golden.pop("now"), "now"),
    ],
)
def test_a_manifest_without_gaps_is_refused(bundle: Bundle, change: object, said: str) -> None:
    manifest = copy.deepcopy(dict(bundle.manifest))
    manifest["sha256"] = ""
    change(manifest["golden"][1])  # type: ignore[operator]
    names = ("manifest.json", "model.pte", "vocabulary.bin", "catalog.bin")
    with pytest.raises(DamagedFile, match=said):
        check_entries(manifest, bundle.path, full_schema, names)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"history": [1, 2]}, r"give times=\[…\], the seconds of each of its 2 items"),
        ({"history": [1, 2], "times": [1]}, "times: 1 for a history of 2 items"),
        ({"history": [1, 2], "times": [1, "2000-01-01"]}, "seconds are wanted, or None"),
        ({"history": [1], "times": [1], "now": float("nan")}, "seconds are wanted, or None"),
        ({"context": {"seen": [1]}}, "'seen' is read with time gaps; give it as history="),
    ],
)
def test_what_cannot_be_asked(bundle: Bundle, asked: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        bundle.recommend(**asked)  # type: ignore[arg-type]


def test_rows_have_no_times(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="reads time gaps; use rank"):
        bundle.score({"seen": [1], "item": 2})
