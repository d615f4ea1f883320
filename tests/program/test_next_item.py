"""The next item from the eager model to a bundle that is asked with raw keys."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import next_item_time
from ondevice import next_item
from ondevice.bundle.item_rows import next_item_bytes
from ondevice.bundle.manifest import CATALOG, MANIFEST, PROGRAM, VOCABULARY, full_schema
from ondevice.bundle.manifest_check import check_entries
from ondevice.data import Dataset, load_dataset
from ondevice.errors import ConfigError, UserError
from ondevice.models.sequences import SEQUENCE_MODELS
from ondevice.next_item import NextItemRecommender
from ondevice.program.bundle import Bundle
from ondevice.program.golden import golden_case
from ondevice.program.next_item import pack
from ondevice.program.next_item_export import (
    ExportedNextItem,
    check_recommended,
    export_model,
    long_golden_rows,
    parity,
    program_histories,
    rank_correlation,
)
from ondevice.run.next_item import item_info
from ondevice.training.windows import Log, Moments

from ..conftest import write_movielens

LAST = 50
LENGTHS = (0, 1, 20)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("next")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(folder / "cache"))
        return load_dataset(
            "movielens_1m", folder=write_movielens(folder / "ml"), fields="next_item", split="leave_last_out"
        )


def recommender(data: Dataset, name: str, dim: int = 8, **options: int) -> NextItemRecommender:
    torch.manual_seed(0)
    made = next_item.build(
        item_info(data), model=name, model_options={"last": LAST, **options}, dim=dim, init_std=0.3
    )
    with torch.no_grad():
        for weights in made.model.parameters():  # equal ones, as untrained norms have, a program stores once
            weights.add_(torch.randn(weights.shape), alpha=0.02)
        made.first_order.weight.normal_(std=0.1)
        made.model.nobody.normal_()
    return made.eval()


@pytest.fixture(scope="module")
def exported(data: Dataset) -> ExportedNextItem:
    """Of one block: each further one takes ten seconds to lower, and tells nothing."""
    made = recommender(data, "sasrec", 64, num_blocks=1)
    return export_model(made, data, "next", "sasrec", {"valid_ndcg@10": 0.5}, catalog=True, top_k=12)


@pytest.fixture(scope="module")
def bundle(exported: ExportedNextItem) -> Bundle:
    return exported.bundle


def eager_scores(made: ExportedNextItem, items: list[int]) -> Tensor:
    """Scores of the eager model after some items, by their keys' places in the bundle."""
    begin = int(made.packed.order.ids.min()) - 1
    ids = torch.from_numpy(made.packed.order.ids - begin)
    history = torch.zeros(1, LAST, dtype=torch.int64)
    if items:
        history[0, -len(items[-LAST:]) :] = ids[torch.tensor(items[-LAST:])]
    with torch.no_grad():
        return made.recommender(history)[0, ids - 1]


@pytest.mark.parametrize("name", SEQUENCE_MODELS)
def test_the_packed_model_is_the_eager_one(data: Dataset, name: str) -> None:
    made = recommender(data, name)
    packed = pack(made, data)
    moments = Moments.of(Log.of(data), "test", LAST)
    histories = torch.cat([moments.histories[:5], torch.zeros(1, LAST, dtype=torch.int64)])
    rows, every = program_histories(packed, histories), torch.arange(packed.num_rows).unsqueeze(1)
    places = torch.from_numpy(packed.order.ids - packed.order.ids.min())
    with torch.no_grad():
        scores = torch.stack([packed(row[None], every) for row in rows])
        torch.testing.assert_close(scores, made(histories)[:, places])


def test_its_bytes_are_those_that_were_estimated(exported: ExportedNextItem, data: Dataset) -> None:
    """Attention's own graph was not counted: a bundle of 130,000 bytes came out 138,205."""
    made = exported.recommender
    forms = [form.without(torch.arange(len(form.row_sizes())) == 0) for form in made.forms()]
    estimate = next_item_bytes(forms, made.info, made.model, data)
    assert estimate == pytest.approx(exported.bundle.needed_bytes, abs=900)


def test_every_link(exported: ExportedNextItem, data: Dataset) -> None:
    measured = parity(exported, Log.of(data))
    assert measured["eager_vs_packed"] < 1e-4
    assert measured["packed_vs_int8_sqnr_db"] > 20
    assert measured["int8_vs_pte_max_abs"] < 1e-3
    assert measured["test_ndcg@10_pte"] == pytest.approx(measured["test_ndcg@10_eager"], abs=0.1)
    assert measured["lengths"][:2] == [0, 1]
    assert exported.bundle.check_golden() == 0
    assert exported.num_delegated > 0


@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_recommended(exported: ExportedNextItem, bundle: Bundle, length: int) -> None:
    keys = bundle.item_keys
    seen = list(range(length))
    shown = bundle.recommend(history=[keys[i] for i in seen], k=5)
    scores = eager_scores(exported, seen)
    scores[seen] = -torch.inf
    best = scores.topk(5)
    assert [each["score"] for each in shown] == pytest.approx(best.values.tolist(), abs=0.1)
    assert not {each["item"] for each in shown} & {keys[i] for i in seen}
    assert all(each["title"].startswith("Film") for each in shown)
    assert bundle.rank({"seen": [keys[i] for i in seen]}, [shown[0]["item"]]) == pytest.approx(
        [shown[0]["score"]], abs=1e-4
    )


def test_items_are_left_out(bundle: Bundle) -> None:
    keys = bundle.item_keys
    first = [each["item"] for each in bundle.recommend(history=[keys[0]], k=4)]
    again = [
        each["item"] for each in bundle.recommend(history=[keys[0]], k=3, exclude=[first[0], 9_999, None])
    ]
    assert again == first[1:]
    assert bundle.recommend({"seen": [keys[0]]}, k=4)[0]["item"] == first[0]
    assert bundle.recommend(history=keys, k=5) == []
    assert len(bundle.recommend(history=keys[2:], k=5)) == 2
    repeated = bundle.recommend(history=[keys[0], keys[0], 123456, keys[1]], k=3)
    assert keys[0] not in [each["item"] for each in repeated]


def test_a_subset_is_ranked(bundle: Bundle) -> None:
    keys = bundle.item_keys
    history = [keys[0], keys[3]]
    best = bundle.recommend(history=history, k=12)
    chosen = [best[7]["item"], best[2]["item"], str(best[5]["item"])]
    shown = bundle.recommend(history=history, among=[*chosen, keys[3], chosen[0]], exclude=[best[5]["item"]])
    assert [each["item"] for each in shown] == [best[2]["item"], best[7]["item"]]
    assert [each["score"] for each in shown] == pytest.approx([best[2]["score"], best[7]["score"]], abs=1e-5)
    assert (
        bundle.recommend({"seen": history}, among=[keys[3]]) == bundle.recommend(history=[], among=[]) == []
    )
    scores = bundle.rank(history=history, items=chosen)
    assert scores == bundle.rank({"seen": history}, [{"item": each} for each in chosen])
    assert scores == pytest.approx([best[7]["score"], best[2]["score"], best[5]["score"]], abs=1e-5)
    with pytest.raises(UserError, match="item 123456 is none that this bundle knows; leave it out"):
        bundle.recommend(history=[], among=[123456])


def test_a_key_is_all_there_is_of_an_item(exported: ExportedNextItem, bundle: Bundle) -> None:
    """So a bundle without catalog.bin ranks items by their keys."""
    contents = {name: content for name, content in bundle.contents.items() if name != CATALOG}
    bare = Bundle(bundle.path, bundle.manifest, contents)
    assert bare.rank(history=[], items=bare.item_keys[:3]) == bundle.rank(
        history=[], items=bundle.item_keys[:3]
    )
    shown, titled = (each.recommend(history=[], among=each.item_keys[:3]) for each in (bare, bundle))
    assert [each["score"] for each in shown] == [each["score"] for each in titled]
    assert [sorted(each[0]) for each in (shown, titled)] == [["item", "score"], ["item", "score", "title"]]


def test_golden_cases_say_what_is_recommended(
    exported: ExportedNextItem, bundle: Bundle, data: Dataset
) -> None:
    empty, short = bundle.manifest["golden"]
    assert (empty["raw"]["seen"], len(short["raw"]["seen"])) == ([], 3)
    shown = bundle.recommend(history=short["raw"]["seen"], k=3)
    assert short["best"]["items"] == [each["item"] for each in shown]
    assert bundle.check_golden() == 0
    wrong = copy.deepcopy(dict(bundle.manifest))
    wrong["golden"][1]["best"]["scores"][2] -= 3 * wrong["golden_tolerance"]
    with pytest.raises(UserError, match="golden case 2 gives"):
        Bundle(bundle.path, wrong, bundle.contents).check_golden()
    assert Bundle(bundle.path, wrong, bundle.contents).check_golden(tolerance=9) > 0
    cases = long_golden_rows(data, (0, 1, 5, 400))
    assert [len(case["seen"]) for case in cases][:3] == [0, 1, 5]
    assert cases[1] == {"seen": cases[2]["seen"][:1], "item": cases[2]["seen"][1]}
    assert golden_case(bundle, cases[-1])["best"]["scores"]


def test_a_long_history_is_read_to_its_last_and_left_out_whole(
    exported: ExportedNextItem, bundle: Bundle
) -> None:
    keys = bundle.item_keys
    seen = [i % 20 for i in range(400)]
    shown = bundle.recommend(history=[keys[i] for i in seen], k=5)
    scores = eager_scores(exported, seen)
    assert [each["score"] for each in shown] == pytest.approx(scores[20:].topk(5).values.tolist(), abs=0.1)


def test_nobody_gets_what_nobody_wants(exported: ExportedNextItem, bundle: Bundle) -> None:
    """An empty history, and one of unknown items, is the learnt vector of nobody, the same for each."""
    shown = bundle.recommend(history=[], k=3)
    made = exported.recommender
    vectors, bias = made.item_vectors()
    expected = (vectors @ made.model.nobody + bias).topk(3).values
    assert [each["score"] for each in shown] == pytest.approx(expected.tolist(), abs=0.1)
    assert bundle.recommend(history=[999_999], k=3) == shown == bundle.recommend(k=3)


def test_what_cannot_be_asked(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="returns at most 12 items, 13 were asked for"):
        bundle.recommend(history=[], k=13)
    with pytest.raises(UserError, match="has 'seen' and a history is given"):
        bundle.recommend({"seen": []}, history=[])
    with pytest.raises(UserError, match="'item' takes numbers, not 'x'; leave it out"):
        bundle.recommend(history=[], exclude=["x"])


def test_another_program_is_seen(exported: ExportedNextItem, data: Dataset) -> None:
    with torch.no_grad():
        exported.quantized.first_order.values.neg_()
        with pytest.raises(RuntimeError, match="the program recommends"):
            check_recommended(exported, Log.of(data))
        exported.quantized.first_order.values.neg_()


def test_a_program_reads_what_its_schema_gives(data: Dataset) -> None:
    with pytest.raises(ConfigError, match="reads one history of its model's last 7 items"):
        export_model(recommender(data, "sasrec", last=7), data, "n", "sasrec", {})


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([10, 20, 30])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([30, 20, 10])) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([2, 1, 3])) == pytest.approx(0.5)


def test_absent_places_come_after_all_rows(data: Dataset) -> None:
    packed = pack(recommender(data, "decayed_pooling"), data)
    ids = torch.tensor([[0, 0, 1, 2]])
    rows = program_histories(packed, ids)
    assert rows[0, :2].tolist() == [packed.num_rows] * 2
    assert np.array_equal(packed.order.ids[rows[0, 2:]] - packed.order.ids.min(), [0, 1])


def test_recommend_is_timed(bundle: Bundle, tmp_path: Path) -> None:
    written = bundle.write(tmp_path / "b")
    figures = next_item_time.time_here({"one": written.path, "same": written.path}, rounds=2, calls=3)
    assert all(0 < each["p50_us"] <= each["p90_us"] and each["items_us"] > 0 for each in figures.values())
    assert figures["one"]["over_first"] == 1


def test_items_become_vectors_once(exported: ExportedNextItem) -> None:
    program, packed = exported.bundle.program, exported.quantized
    with torch.no_grad():
        expected = packed.item_vectors().numpy()
    assert expected.shape == (packed.num_rows + 1, 65)
    assert not expected[-1].any()
    (vectors,) = program("items")
    np.testing.assert_allclose(vectors, expected, rtol=1e-6, atol=1e-7)
    history, every = np.full((1, 50), packed.num_rows), np.arange(packed.num_rows)[:, None]
    before = program("rank", history, every)[0]
    again = program("rank", history, every)[0]
    assert np.array_equal(before, again)
    assert program.item_vectors is program.item_vectors


def test_the_manifest_says_what_is_left_out(bundle: Bundle, tmp_path: Path) -> None:
    written = bundle.write(tmp_path / "b")
    method = written.manifest["methods"]["recommend"]
    assert [tensor["name"] for tensor in method["inputs"]] == [
        "context_ids",
        "exclude_ids",
        "item_vectors",
    ]
    assert method["max_excluded"] == bundle.num_rows + 1
    assert written.recommend(history=[], k=2) == bundle.recommend(history=[], k=2)


@pytest.mark.parametrize(
    ("entry", "change", "wrong"),
    [
        (
            "rank",
            None,
            "methods.rank.inputs must be those of a program whose method items makes item_vectors",
        ),
        ("items", {"outputs": []}, "methods.items.outputs must be item_vectors alone, of no input"),
    ],
)
def test_vectors_of_items_need_the_method_that_makes_them(
    bundle: Bundle, entry: str, change: dict[str, Any] | None, wrong: str
) -> None:
    manifest = {**copy.deepcopy(dict(bundle.manifest)), "sha256": ""}
    if change is None:
        del manifest["methods"]["items"]
    else:
        manifest["methods"][entry] |= change
    with pytest.raises(UserError, match=wrong):
        check_entries(manifest, Path(MANIFEST), full_schema, (MANIFEST, PROGRAM, VOCABULARY, CATALOG))
