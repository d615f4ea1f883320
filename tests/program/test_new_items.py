"""Items that come after a training: trained with attributes, exported, and ranked by them from raw keys.

One run has a dense model and a compact one, and both are bundles.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ondevice.bundle.manifest import ITEM_ATTRIBUTES
from ondevice.config.file import load
from ondevice.errors import DamagedFile, UserError
from ondevice.models.item_attributes import PULL, ItemAttributes
from ondevice.program.attribute_values import stored_vectors
from ondevice.program.bundle import Bundle, load_bundle
from ondevice.program.new_items import basis, write_new_items
from ondevice.program.next_item import pack
from ondevice.program.next_item_export import export_next_item
from ondevice.program.quantize import quantize
from ondevice.run.directory import Run
from ondevice.run.next_item import NextItemPipeline, load_run

from ..models.test_item_attributes import CONFIG, genre_films

NEW = [
    {"item": 901, "title": "A New Drama", "year": 1995, "genres": ["Drama"]},
    {"item": 902, "genres": ["Western", "Comedy", "never heard of"]},
]

LABEL = "22KB"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new_items")
    films = genre_films(folder / "ml")
    overrides = [
        f"data.folder={films}",
        "embedding.dim=8",
        "train.epochs=2",
        "run.progress=false",
        "run.device=cpu",
        f"compact.budgets=[{LABEL}]",
        "compact.sizes=uniform",
        "compact.train={loss: softmax, epochs: 1, batch_size: 128}",
        "compact.store={name: codes, first_order: none, max_size: 8, size_step: 4, code_dims: 4}",
        "compact.teach={teachers: [dense], pairs: 0}",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(folder / "cache"))
        NextItemPipeline(load(CONFIG, overrides), folder / "run").run()
        export_next_item(folder / "run", catalog=True, check=False)
        export_next_item(folder / "run", label=LABEL, check=False)
    return folder / "run"


@pytest.fixture
def bundle(run: Path) -> Bundle:
    return load_bundle(run / "bundles" / "int8")


def test_new_items_stand_among_the_others(bundle: Bundle) -> None:
    history = bundle.item_keys[:5]
    best = bundle.with_items(NEW).recommend(history=history, k=30)
    shown = {each["item"]: each for each in best}
    assert shown[901]["title"] == "A New Drama"
    assert "title" not in shown[902]
    scores = [each["score"] for each in best]
    assert scores == sorted(scores, reverse=True)
    known = bundle.recommend(history=history, k=30)
    assert [each for each in best if each["item"] < 900] == known


@pytest.mark.parametrize(("label", "folder"), [(None, "int8"), (LABEL, LABEL)])
def test_attributes_are_fitted_to_the_items_of_a_program(run: Path, label: str | None, folder: str) -> None:
    """By hand: a ridge regression of the stored vectors, and the combination of known scores that it comes to."""
    bundle, (made, plain) = load_bundle(run / "bundles" / folder), load_run(Run(run), label)
    packed, data = pack(made, plain), Run(run).dataset()
    vectors, attributes = (
        stored_vectors(quantize(packed, "int8")).astype(np.float64),
        ItemAttributes.of(data, 1),
    )
    assert attributes is not None
    items = torch.from_numpy(packed.order.ids - packed.order.ids.min() + 1)
    shares = np.zeros((len(items), len(attributes.weight)))
    for row, item in enumerate(items):
        np.add.at(shares[row], attributes.ids[item].numpy(), attributes.shares[item].numpy())
    counts = made.info.counts[items].numpy()
    pulls = PULL * counts.mean() * np.eye(shares.shape[1])
    values = np.linalg.solve(
        shares.T @ (counts[:, None] * shares) + pulls, shares.T @ (counts[:, None] * vectors)
    )
    years, begin = attributes.fields[0], 1 + len(attributes.keys[0])
    drama, comedy, western = (begin + attributes.keys[1].index(g) for g in ("Drama", "Comedy", "Western"))
    expected = {
        901: values[1 + attributes.keys[0].index(years.key(1995))] + values[drama],
        902: (values[western] + values[comedy]) / 2,
    }
    known = [bundle.item_keys[place] for place in range(len(items))]
    scores = np.array(bundle.rank(history=known[:3], items=known))
    shown = {
        each["item"]: each["score"] for each in bundle.with_items(NEW).recommend(history=known[:3], k=30)
    }
    for key, vector in expected.items():
        combined = np.linalg.lstsq(vectors.T, vector, rcond=None)[0] @ scores
        assert shown[key] == pytest.approx(combined, abs=1e-3 * scores.std())


def test_attributes_are_fitted_where_the_data_are_no_longer(
    run: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDEVICE_CACHE", str(tmp_path / "empty"))
    films = run.parent / "ml"
    films.rename(run.parent / "moved")
    try:
        export_next_item(run, output=tmp_path / "bundle")
    finally:
        (run.parent / "moved").rename(films)
    there, here = (load_file(each / ITEM_ATTRIBUTES) for each in (bundle.path, tmp_path / "bundle"))
    assert all(np.array_equal(there[name], here[name]) for name in there)


def test_attributes_of_another_model_are_refused(run: Path, tmp_path: Path) -> None:
    bundle = load_bundle(run / "bundles" / LABEL).write(tmp_path / "bundle")
    (bundle.path / ITEM_ATTRIBUTES).write_bytes((run / "bundles" / "int8" / ITEM_ATTRIBUTES).read_bytes())
    with pytest.raises(UserError, match="belongs to another model than"):
        bundle.with_items(NEW)


def test_new_items_are_left_out_like_others(bundle: Bundle) -> None:
    wider = bundle.with_items(NEW)
    assert 901 not in {each["item"] for each in wider.recommend(history=[901], k=30)}
    assert 902 not in {each["item"] for each in wider.recommend(exclude=[902], k=30)}
    assert len(wider.recommend(k=3)) == 3
    assert bundle.new_items is None


def test_a_file_of_new_items(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    write_new_items(path, bundle, NEW)
    assert bundle.with_items(path).recommend(k=30) == bundle.with_items(NEW).recommend(k=30)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "model": "0" * 64}))
    with pytest.raises(UserError, match="belongs to another model than"):
        bundle.with_items(path)
    path.write_text("[]")
    with pytest.raises(UserError, match=r"no file of new items \(format"):
        bundle.with_items(path)
    path.write_text("{")
    with pytest.raises(DamagedFile, match="not JSON"):
        bundle.with_items(path)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"item": 1, "genres": ["Drama"]}, "item 1 is in the bundle already"),
        ({"item": 950, "gerne": "Drama"}, "'gerne' is no attribute (did you mean 'genres'?"),
        (
            {"item": 950, "genres": ["Opera"]},
            "item 950 has no attribute that the model knows; give year, genres",
        ),
        ({"genres": ["Drama"]}, "item 1 has no key; give it a value of 'item'"),
    ],
)
def test_items_that_cannot_be_taken(bundle: Bundle, item: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace("?", r"\?")):
        bundle.with_items([item])


def test_attributes_of_another_bundle_and_none_and_damaged_ones(
    run: Path, bundle: Bundle, tmp_path: Path
) -> None:
    alone = bundle.write(tmp_path / "alone")
    with pytest.raises(UserError, match=r"takes no new items \(item_attributes"):
        alone.with_items(NEW)
    path = tmp_path / "alone" / ITEM_ATTRIBUTES
    with safe_open(bundle.path / ITEM_ATTRIBUTES, framework="numpy") as content:
        tensors = {name: content.get_tensor(name) for name in ("places", "coefficients")}
        save_file(tensors, path, {**content.metadata(), "model": "0" * 64})
    with pytest.raises(UserError, match="belongs to another model than"):
        alone.with_items(NEW)
    path.write_bytes(b"nothing")
    with pytest.raises(DamagedFile, match="damaged"):
        alone.with_items(NEW)
    alone.write(tmp_path / "alone")  # what lies beside it is no reason to refuse


def test_a_basis_spans_all_rows() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 3)) @ np.random.default_rng(1).normal(size=(3, 6))
    places = basis(vectors)
    assert len(places) == 3
    coefficients = np.linalg.lstsq(vectors[places].T, vectors.T, rcond=None)[0]
    np.testing.assert_allclose(coefficients.T @ vectors[places], vectors, atol=1e-9)
