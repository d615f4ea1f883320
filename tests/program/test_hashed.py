"""Programs whose fields are hashed: no keys are stored, and any text finds the row it was trained with."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from ondevice.bundle.row_lookup import RowLookup
from ondevice.bundle.vocabulary_file import HASHED, FieldKeys, Group, decode, encode
from ondevice.data import Dataset
from ondevice.data.key_hash import key_hash
from ondevice.errors import UserError
from ondevice.forms.shared import SharedMap
from ondevice.models import MODELS
from ondevice.program.export import ExportOptions, export_model
from ondevice.program.pack import pack
from ondevice.training.checkpoint import load_recommender, save_recommender

from . import shop

HASHED_FIELDS = [0, 2, 3]  # user, hour and film: more than 17 values


@pytest.mark.parametrize("layout", ["staircase", "csr"])
@pytest.mark.parametrize("model", MODELS)
def test_packed_equals_eager(model: str, layout: str, data: Dataset) -> None:
    recommender = shop.hashed_recommender(model, data)
    packed = pack(recommender, layout, data.vocabulary.key_texts())
    assert [f for f in range(5) if packed.order.is_hashed(f)] == HASHED_FIELDS
    ids = shop.all_ids(data)
    with torch.no_grad():
        torch.testing.assert_close(packed(packed.order.rows(ids)), recommender(ids), atol=1e-5, rtol=1e-5)


def test_every_id_has_the_row_that_its_text_hashes_to(data: Dataset) -> None:
    packed = pack(shop.hashed_recommender("fm", data), "staircase", data.vocabulary.key_texts())
    order, texts = packed.order, data.vocabulary.key_texts()
    lookup = RowLookup(decode(encode(order.field_keys)))
    for f, (begin, end) in enumerate(pairwise(data.vocabulary.field_offsets.tolist())):
        assert [lookup.row(f, texts[i]) for i in range(begin, end)] == order.row_of[begin:end].tolist()
    rows = {
        f: set(order.row_of[begin + 1 : end]) for f, (begin, end) in enumerate(pairwise(order.field_offsets))
    }
    assert sum(len(chosen) for chosen in rows.values()) == len(
        set().union(*rows.values())
    )  # fields share no rows
    assert len(rows[0]) <= 17 < shop.NUM_USERS
    assert lookup.num_keys() == len(shop.ZIPS) + len(shop.GENRES)


def test_it_reads_back(data: Dataset, tmp_path: Path) -> None:
    recommender = shop.hashed_recommender("fm", data)
    save_recommender(tmp_path / "model", recommender, "fm", {})
    again = load_recommender(tmp_path / "model", shop.info(data))
    ids = shop.all_ids(data)
    assert torch.equal(recommender(ids), again(ids))
    one, other = recommender.forms()[0], again.forms()[0]
    assert isinstance(one, SharedMap)
    assert isinstance(other, SharedMap)
    assert torch.equal(one.modulus, other.modulus)


def test_a_bundle_scores_what_it_never_saw(data: Dataset, tmp_path: Path) -> None:
    options = ExportOptions(max_batch=64)
    exported = export_model(
        shop.hashed_recommender("fm", data),
        data,
        name="shop",
        model="fm",
        method="hashing",
        options=options,
    )
    assert sorted(exported.bundle.manifest["methods"]) == ["forward", "rank"]
    assert exported.parity["eager_vs_packed"] < 1e-5
    bundle = exported.bundle.write(tmp_path / "bundle")
    bundle.check_golden()
    (group,) = bundle.vocabulary.fields[0].groups
    assert bundle.encode({"user": 123456})[0] == group.base_row + key_hash("123456") % len(group.keys)
    assert bundle.encode({})[0] == exported.packed.order.unknown_rows[0]
    assert bundle.file_bytes()["vocabulary.bin"] < 150
    for wrong in (ExportOptions(catalog=True), ExportOptions(methods=("forward", "recommend"))):
        with pytest.raises(
            UserError, match="'film' is hashed, so a bundle does not know which items there are"
        ):
            export_model(exported.recommender, data, name="shop", model="fm", method="hashing", options=wrong)


def test_the_bytes_of_a_hashed_field() -> None:
    field = FieldKeys(9, (Group(3, HASHED, range(6)),))
    assert encode([field]) == b"ODV2" + bytes([1, 9, 1, 3, 6, 255])
    assert decode(encode([field]), num_rows=9) == [field]
    with pytest.raises(UserError, match="a group of 6 keys from row 3"):
        decode(encode([FieldKeys(0, field.groups)]), num_rows=8)
    lookup = RowLookup([field])
    assert lookup.row(0, "foobar") == 3 + 0xBF9CF968 % 6
    assert (lookup.row(0, None), lookup.row(0, "\ud800"), list(lookup.items(0))) == (9, 9, [])
