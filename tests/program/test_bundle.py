"""A bundle from raw values: verified by name, and the same answers as the model it came from."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ondevice
from ondevice.bundle import manifest as manifests
from ondevice.bundle import vocabulary_file
from ondevice.data import Dataset
from ondevice.data.value_names import VALUE_NAMES
from ondevice.errors import UserError
from ondevice.program.bundle import Bundle, load_bundle, make_bundle
from ondevice.program.export import Exported

CONTEXT = {"user": 12, "zip": "02138", "hour": 1500}


def test_a_bundle_is_used_from_raw_values(bundle: Bundle, exported: Exported, data: Dataset) -> None:
    loaded = ondevice.load_bundle(bundle.path)
    rows = data.raw_rows("test", range(50))
    ids = torch.from_numpy(np.asarray(data.test.ids[:50], dtype=np.int64))
    with torch.no_grad():
        eager = torch.sigmoid(exported.recommender(ids)).numpy()
    np.testing.assert_allclose(loaded.score(rows), eager, atol=0.03)  # int8
    assert loaded.score(rows[0]) == loaded.score([rows[0]])
    assert loaded.score([]) == []


def test_ranking_and_scoring_agree(bundle: Bundle) -> None:
    items = [{"film": 7 * i, "genre": "Drama"} for i in range(1, 151)]  # more than one call takes
    scores = bundle.rank(CONTEXT, items)
    whole = bundle.score([{**CONTEXT, **item} for item in items])
    np.testing.assert_allclose(scores, whole, atol=1e-6)
    assert len({round(s, 6) for s in scores}) > 20
    assert bundle.rank(CONTEXT, []) == []


def test_recommendations_are_the_best_ranked_items(bundle: Bundle) -> None:
    result = bundle.recommend(CONTEXT, k=5)
    assert bundle.catalog is not None
    keys = [item["film"] for item in bundle.catalog]
    scores = bundle.rank(CONTEXT, keys)  # by key, through catalog.bin
    best = sorted(zip(scores, keys, strict=True), key=lambda pair: -pair[0])[:5]
    assert [entry["item"] for entry in result] == [key for _, key in best]
    np.testing.assert_allclose([entry["score"] for entry in result], [score for score, _ in best], atol=1e-6)
    assert result[0]["title"] == f"Film {result[0]['item']}"
    more = bundle.recommend(CONTEXT, k=20)  # beyond what the program returns: through catalog.bin
    assert [entry["item"] for entry in more[:5]] == [entry["item"] for entry in result]
    assert len(more) == 20


def test_golden_cases_come_out_again(bundle: Bundle) -> None:
    cases = bundle.manifest["golden"]
    assert len(cases) == 2
    assert any(value is None for value in cases[1]["raw"].values())
    assert all(value is not None for value in cases[0]["raw"].values())
    assert load_bundle(bundle.path).check_golden() < 1e-5
    bundle.manifest["golden"][0]["score"] += 0.01
    with pytest.raises(UserError, match="golden case 1"):
        bundle.check_golden()


def test_missing_and_unseen_values_are_unknown(bundle: Bundle) -> None:
    known = bundle.encode({**CONTEXT, "film": 7, "genre": "Drama"})
    unknown = bundle.encode({})
    assert (known != unknown).sum() >= 3
    odd = {"user": "?", "zip": "", "hour": float("nan"), "film": 10**6, "genre": "Opera"}
    assert np.array_equal(bundle.encode(odd), unknown)
    assert np.array_equal(bundle.encode({**CONTEXT, "user": "12"}), bundle.encode({**CONTEXT, "user": 12.0}))


def test_misspelt_and_misplaced_fields_are_named(bundle: Bundle) -> None:
    with pytest.raises(UserError, match=r"'usr' is not a field \(did you mean 'user'\?"):
        bundle.score({"usr": 1})
    with pytest.raises(UserError, match=r"'userId' is not a field \(did you mean 'user'\?"):
        bundle.recommend({"userId": 1})
    with pytest.raises(UserError, match=r"'Genre' is not a field \(did you mean 'genre'\?"):
        bundle.rank(CONTEXT, [{"Genre": "Drama"}])
    with pytest.raises(UserError, match="'user' takes numbers, not 'nobody'"):
        bundle.recommend({"user": "nobody"})
    with pytest.raises(UserError, match="'film' is not a field of this side"):
        bundle.recommend({**CONTEXT, "film": 7})
    with pytest.raises(UserError, match="'user' is not a field of this side"):
        bundle.rank(CONTEXT, [{"user": 1}])
    with pytest.raises(UserError, match=r"item 9999999 is not in catalog\.bin"):
        bundle.rank(CONTEXT, [9999999])
    with pytest.raises(UserError, match="k must be at least 1"):
        bundle.recommend(CONTEXT, k=0)


@pytest.mark.parametrize("name", ["manifest.json", "model.pte", "vocabulary.bin", "catalog.bin"])
def test_any_changed_byte_is_refused_by_name(bundle: Bundle, name: str) -> None:
    path = bundle.path / name
    content = path.read_bytes()
    step = max(1, len(content) // 150)
    for place in [*range(0, min(120, len(content))), *range(0, len(content), step), len(content) - 1]:
        changed = bytearray(content)
        changed[place] ^= 0x55
        path.write_bytes(bytes(changed))
        with pytest.raises(UserError, match=name.replace(".", r"\.")):
            load_bundle(bundle.path)
    for wrong in (content[:-1], content + b"\n", b""):
        path.write_bytes(wrong)
        with pytest.raises(UserError, match=name.replace(".", r"\.")):
            load_bundle(bundle.path)
    path.unlink()
    with pytest.raises(UserError, match=rf"{name.replace('.', '[.]')}: .*export it again"):
        load_bundle(bundle.path)


def reseal(folder: Path, change: dict[str, Any]) -> None:
    """Change the manifest as a newer or hostile exporter would: with a right hash."""
    values = json.loads((folder / "manifest.json").read_text())
    content = manifests.dump({**values, "sha256": "0" * 64, **change}).encode()
    digest = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_bytes(content.replace(b"0" * 64, digest.encode(), 1))


def test_a_newer_format_and_a_foreign_file_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    reseal(bundle.path, {})
    load_bundle(bundle.path)  # resealing alone breaks nothing
    reseal(bundle.path, {"format_version": 4})
    with pytest.raises(
        UserError, match="format version 4, but this ondevice knows versions up to 3; upgrade"
    ):
        load_bundle(bundle.path)
    reseal(bundle.path, {"format_version": 2})
    with pytest.raises(
        UserError, match="format version 2 of an earlier ondevice, this one reads 3; export it again"
    ):
        load_bundle(bundle.path)
    reseal(bundle.path, {"format_version": 3, "format": "other"})
    with pytest.raises(UserError, match="not the manifest of a bundle"):
        load_bundle(bundle.path)
    files = {**bundle.manifest["files"], "../secret": {"bytes": 1, "sha256": "0" * 64}}
    reseal(bundle.path, {"format": "ondevice-bundle", "files": files})
    with pytest.raises(UserError, match="outside the bundle"):
        load_bundle(bundle.path)
    with pytest.raises(UserError, match="no bundle here"):
        load_bundle(tmp_path / "nowhere")


def test_a_vocabulary_of_other_fields_is_refused(bundle: Bundle) -> None:
    content = vocabulary_file.encode(vocabulary_file.decode(bundle.contents[manifests.VOCABULARY])[:-1])
    (bundle.path / manifests.VOCABULARY).write_bytes(content)
    entry = manifests.file_entry(content)
    reseal(bundle.path, {"files": {**bundle.manifest["files"], manifests.VOCABULARY: entry}})
    with pytest.raises(UserError, match=r"vocabulary\.bin: 4 fields, but the schema has 5"):
        load_bundle(bundle.path)


def test_a_bundle_needs_nothing_but_its_directory(bundle: Bundle, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.move(bundle.path, moved)
    assert load_bundle(moved).recommend(CONTEXT)[0]["score"] > 0


def test_writing_replaces_a_bundle_and_nothing_else(
    exported: Exported, bundle: Bundle, tmp_path: Path
) -> None:
    exported.bundle.write(bundle.path)
    assert sorted(p.name for p in bundle.path.iterdir()) == sorted(bundle.contents)
    other = tmp_path / "work"
    other.mkdir()
    (other / "thesis.tex").write_text("years")
    with pytest.raises(UserError, match="not empty and no bundle"):
        exported.bundle.write(other)
    assert (other / "thesis.tex").read_text() == "years"
    for manifest in ('{"version": 1}', "[]", '{"format": "ondevice-bundle"}', "not JSON", "[" * 100_000):
        (other / "manifest.json").write_text(manifest)  # of a browser's extension, say
        with pytest.raises(UserError, match=r"no bundle: .*thesis\.tex would be lost; give another --output"):
            exported.bundle.write(other)
        assert (other / "thesis.tex").read_text() == "years"
    (bundle.path / "notes").mkdir()
    with pytest.raises(UserError, match="no bundle: notes would be lost"):
        exported.bundle.write(bundle.path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        exported.bundle.write(tmp_path / "file" / "bundle")


def test_the_manifest_is_one_line_of_json_that_says_what_is_there(bundle: Bundle) -> None:
    content = (bundle.path / "manifest.json").read_bytes()
    assert content.startswith(b'{"sha256":"')
    assert b"\n" not in content
    values = json.loads(content)
    assert list(values)[:3] == ["sha256", "format", "format_version"]
    assert values["num_rows"] == bundle.num_rows
    assert values["catalog"] == {"key_field": "film", "num_items": len(bundle.catalog or [])}
    assert set(values["versions"]) == {"ondevice", "torch", "torchao", "executorch"}
    sizes = values["sizes"]
    assert sum(sizes["dims"]) == 6
    assert sizes["rows"] == sorted(sizes["rows"], reverse=True)
    assert values["files"]["model.pte"]["bytes"] == (bundle.path / "model.pte").stat().st_size
    assert bundle.total_bytes == sum(p.stat().st_size for p in bundle.path.iterdir())


def test_names_of_coded_values_go_with_the_titles(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {bundle.schema.names[0]: {"1": "one"}}
    monkeypatch.setitem(VALUE_NAMES, bundle.schema.name, names)

    def labels(catalog: list[dict[str, Any]] | None) -> Any:
        made = make_bundle(
            program=bundle.contents["model.pte"],
            vocabulary=vocabulary_file.decode(
                bundle.contents["vocabulary.bin"], "vocabulary.bin", bundle.num_rows
            ),
            schema=bundle.schema,
            manifest=bundle.manifest,
            golden=[case["raw"] for case in bundle.manifest["golden"]],
            catalog=catalog,
        )
        return json.loads(made.contents["manifest.json"]).get("labels")

    assert labels(bundle.catalog) == names
    assert labels(None) is None


def test_without_catalog_file_items_have_keys_and_no_titles(exported: Exported, tmp_path: Path) -> None:
    contents = {
        n: c for n, c in exported.bundle.contents.items() if n not in ("catalog.bin", "manifest.json")
    }
    values = dict(exported.bundle.manifest)
    values["files"] = {n: e for n, e in values["files"].items() if n in contents}
    small = Bundle(Path("memory"), values, contents)
    result = small.recommend(CONTEXT, k=3)
    assert [set(entry) for entry in result] == [{"item", "score"}] * 3
    with pytest.raises(UserError, match="at most 5 items, 6 were asked for"):
        small.recommend(CONTEXT, k=6)
    with pytest.raises(UserError, match=r"no catalog\.bin to look a key up in"):
        small.rank(CONTEXT, [7])
    without = {**values, "methods": {"forward": values["methods"]["forward"]}}
    bare = Bundle(Path("memory"), without, contents)
    with pytest.raises(UserError, match=r"neither the method nor catalog\.bin"):
        bare.recommend(CONTEXT)
    items = [{"film": 7, "genre": "Drama"}, {"film": 14}]
    np.testing.assert_allclose(bare.rank(CONTEXT, items), small.rank(CONTEXT, items), atol=1e-6)
