"""Keys as fingerprints: the format by a second reader, damage, mistaken keys, and whole bundles."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ondevice
from ondevice.bench import run_benchmark
from ondevice.bench.settings import Settings
from ondevice.bundle.fingerprints import Fingerprints, decode, text_hashes
from ondevice.bundle.row_lookup import RowLookup
from ondevice.bundle.rows import RowOrder, order_rows
from ondevice.bundle.subset import Reader
from ondevice.bundle.vocabulary_file import FINGERPRINTED, FieldKeys, Group, encode
from ondevice.bundle.vocabulary_file import decode as decode_vocabulary
from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.forms.sizes import Sizes
from ondevice.program.export import ExportOptions, export_model, pack_for
from ondevice.program.export_run import export_run
from ondevice.program.pack import pack

from ..program import shop

MASK = (1 << 64) - 1
words = st.text(max_size=12).filter(lambda t: not any(0xD800 <= ord(c) < 0xE000 for c in t))


def made(texts: list[str], bits: int = 8) -> Fingerprints:
    result = Fingerprints.of(text_hashes(texts), bits)
    assert result is not None
    return result


def mix(value: int, seed: int) -> int:
    """docs/bundle.md, in whole numbers."""
    x = (value + (seed + 1) * 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
    return x ^ x >> 31


def place_by_the_format(data: bytes, num_keys: int, text: str) -> int:
    """Where docs/bundle.md says that a key is, read bit by bit; -1 for one that is not there."""
    value = 14695981039346656037
    for byte in text.encode():
        value = (value ^ byte) * 1099511628211 & MASK
    bits = "".join(f"{byte:08b}" for byte in data[1:])
    width, at, left, before, place, level = data[0], 0, num_keys, 0, -1, 0
    while left:
        level_bits = bits[at : at + left]
        bit = (mix(value, level) >> 32) * left >> 32
        if place < 0 and level_bits[bit] == "1":
            place = before + level_bits[:bit].count("1")
        before += level_bits.count("1")
        at, left, level = at + (left + 7) // 8 * 8, left - level_bits.count("1"), level + 1
    if place < 0:
        return -1
    stored = int(bits[at + place * width : at + (place + 1) * width], 2)
    return place if stored == mix(value, 64) & (1 << width) - 1 else -1


def test_hashes_are_those_of_fnv() -> None:
    known = [0xCBF29CE484222325, 0xAF63DC4C8601EC8C, 0x85944171F73967E8]
    assert text_hashes(["", "a", "foobar"]).tolist() == known
    many = [str(i) for i in range(40_000)]
    assert text_hashes(many)[[0, 16_384, 39_999]].tolist() == text_hashes(["0", "16384", "39999"]).tolist()
    assert len(text_hashes([])) == 0


@settings(max_examples=100, deadline=None)
@given(st.sets(words, min_size=1, max_size=60), st.sets(words, max_size=20), st.integers(1, 32))
def test_any_keys_are_found_as_the_format_says(stored: set[str], others: set[str], bits: int) -> None:
    texts = sorted(stored)
    prints = made(texts, bits)
    assert sorted(prints.places(text_hashes(texts)).tolist()) == list(range(len(texts)))
    data = prints.encode()
    again = decode(Reader(data, "here"), len(texts))
    assert again.encode() == data
    asked = texts + sorted(others - stored)
    expected = [place_by_the_format(data, len(texts), text) for text in asked]
    assert prints.places(text_hashes(asked)).tolist() == expected
    assert again.places(text_hashes(asked)).tolist() == expected


@pytest.mark.parametrize(("bits", "least", "most"), [(4, 1100, 1400), (8, 55, 105), (16, 0, 4), (32, 0, 0)])
def test_as_many_unknown_keys_are_found_as_the_bits_say(bits: int, least: int, most: int) -> None:
    prints = made([f"book {i}" for i in range(5000)], bits)
    result = prints.places(text_hashes([f"other {i}" for i in range(20_000)])) >= 0
    assert least <= int(result.sum()) <= most


def test_a_key_takes_its_fingerprint_and_less_than_three_bits() -> None:
    assert len(made([str(i * 977) for i in range(10_000)], 8).encode()) < 10_000 * (8 + 2.8) / 8


def test_keys_of_one_hash_have_no_perfect_hash() -> None:
    assert Fingerprints.of(text_hashes(["a", "b", "a"]), 8) is None


SAMPLE = made([f"key {i}" for i in range(50)], 5).encode()


def test_levels_and_fingerprints_cut_anywhere_are_refused() -> None:
    for length in range(len(SAMPLE)):
        with pytest.raises(UserError, match=r"ends \d+ bytes early"):
            decode(Reader(SAMPLE[:length], "vocabulary.bin"), 50)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(SAMPLE) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_read_as_others(place: int, change: int) -> None:
    data = bytearray(SAMPLE)
    data[place] ^= change
    reader = Reader(bytes(data), "vocabulary.bin")
    with contextlib.suppress(UserError):
        assert decode(reader, 50).encode() == bytes(data[: reader.at])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\x80\x00", "fingerprints of 0 bits"),
        (b"\x21\x80\x00", "fingerprints of 33 bits"),
        (b"\x08" + bytes(70), "1 keys are left after 64 levels"),
        (b"\x08\xc0\x00", "bits follow the last"),
        (b"\x01\x80\x40", "bits follow the last"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        decode(Reader(data, "vocabulary.bin"), 1)


def test_a_field_has_fingerprints_alone_or_none() -> None:
    prints = made(["a", "b"])
    whole = FieldKeys(2, (Group(0, FINGERPRINTED, [1]), Group(1, FINGERPRINTED, [0])), prints)
    data = encode([whole])
    (again,) = decode_vocabulary(data, num_rows=2)
    assert [(g.base_row, g.form, list(g.keys)) for g in again.groups] == [(0, 254, [1]), (1, 254, [0])]
    lookup = RowLookup([again])
    assert lookup.rows(0, [None, "b", "\ud800", "a"]).tolist() == [
        2,
        lookup.row(0, "b"),
        2,
        lookup.row(0, "a"),
    ]
    assert sorted([lookup.row(0, "a"), lookup.row(0, "b")]) == [0, 1]
    mixed = data[:4] + bytes([1, 2, 2, 0, 1, 254, 1, 1, 0]) + data[13:]
    with pytest.raises(UserError, match="fingerprints beside other keys"):
        decode_vocabulary(mixed)


def check_order(order: RowOrder, plain: RowOrder, offsets: np.ndarray, texts: list[str | None]) -> None:
    """The same rows in each class as without fingerprints, and every text with the row the order says."""
    assert sorted(order.ids.tolist()) == sorted(plain.ids.tolist())
    assert order.classes.tolist() == plain.classes.tolist()
    assert order.has_first_order.tolist() == plain.has_first_order.tolist()
    lookup = RowLookup(decode_vocabulary(encode(order.field_keys), num_rows=order.num_rows))
    assert lookup.num_keys() == RowLookup(plain.field_keys).num_keys()
    stored = set(order.ids.tolist())
    for f, (begin, end) in enumerate(pairwise(offsets.tolist())):
        assert lookup.row(f, None) == order.row_of[begin] == plain.row_of[begin]
        assert (
            lookup.rows(f, [str(t) for t in texts[begin + 1 : end]]).tolist()
            == order.row_of[begin + 1 : end].tolist()
        )
        for i in range(begin, end):
            assert lookup.row(f, texts[i]) == order.row_of[i]
            read = int(order.read_ids(torch.tensor(i)))
            if i in stored:
                assert order.ids[order.row_of[i]] == i == read
                assert plain.classes[plain.row_of[i]] == order.classes[order.row_of[i]]
            elif read == i:
                assert order.row_of[i] == order.row_of[begin]
            else:  # taken for a key of its field
                assert order.ids[order.row_of[i]] == read
                assert begin < read < end


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_in_the_order_of_places_are_found_by_every_text(draw: st.DataObject) -> None:
    offsets, sizes, first = shop.drawn_sizes(draw, most_ids=40, dim=2)
    counts = np.diff(offsets).tolist()
    texts: list[str | None] = []
    for count in counts:
        texts += [None, *(f"{i * 7919 % 1000}-{'long ' * (i % 5)}{i}" for i in range(count - 1))]
    forms = [Sizes(sizes, 2), Sizes(first, 1)]
    plain = order_rows(offsets, forms, texts)
    order = order_rows(offsets, forms, texts, fingerprint_bits=draw.draw(st.sampled_from([1, 3, 8])))
    check_order(order, plain, offsets, texts)
    assert (
        len(encode(order.field_keys)) <= len(encode(plain.field_keys)) + 8
    )  # one by one, they were all smaller
    named = order_rows(offsets, forms, texts, fingerprint_bits=3, named=range(len(counts)))
    assert named.fingerprints == {}
    assert named.ids.tolist() == plain.ids.tolist()


def test_mistaken_keys_are_read_alike_by_program_and_eager_model(data: Dataset) -> None:
    """With one bit, half of the pruned texts are taken for a stored one."""
    texts = [None if t is None else f"a key of the shop, number {t}" for t in data.vocabulary.key_texts()]
    recommender = shop.recommender("deepfm", "staircase", data)
    packed = pack(recommender, "staircase", texts, fingerprint_bits=1)
    assert set(packed.order.fingerprints) == {0, 1, 2, 3, 4}
    ids = shop.all_ids(data)
    read = packed.order.read_ids(ids)
    assert not torch.equal(read, ids)
    with torch.no_grad():
        result = packed(packed.order.rows(ids))
        torch.testing.assert_close(result, recommender(read), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(result, recommender(ids), atol=1e-5)


@pytest.mark.parametrize("bits", [-1, 33])
def test_bits_that_no_fingerprint_has_are_refused(bits: int) -> None:
    with pytest.raises(UserError, match=rf"got {bits}; allowed are 1 to 32, or 0 for keys as they are"):
        ExportOptions(fingerprint_bits=bits)


def test_what_recommend_returns_keeps_its_name(data: Dataset, tmp_path: Path) -> None:
    recommender = shop.recommender("fm", "staircase", data)
    film = data.schema.names.index("film")
    shown = ExportOptions(methods=("forward", "rank"), catalog=True, fingerprint_bits=8)
    assert pack_for(recommender, data, shown).order.names_keys(film)
    options = ExportOptions(methods=("forward", "recommend"), max_batch=64, top_k=5, fingerprint_bits=8)
    exported = export_model(recommender, data, name="shop", model="fm", method="pep", options=options)
    assert exported.packed.order.names_keys(film)
    assert exported.parity["eager_vs_packed"] < 1e-4
    bundle = ondevice.load_bundle(exported.bundle.write(tmp_path / "bundle").path)
    bundle.check_golden()
    assert set(bundle.vocabulary.fingerprint_bits().values()) == {8}
    result = bundle.recommend({"user": 3}, 5)
    assert all(entry["item"] in set(data.vocabulary.keys[film].tolist()) for entry in result)  # type: ignore[union-attr]


def test_a_run_ships_fingerprints_within_its_budget(
    book_crossing_folder: Path, tiny_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    config = tiny_config(
        data={"name": "book_crossing", "folder": str(book_crossing_folder)},
        compact={
            "sizes": {"name": "frequency"},
            "budgets": ["7400B"],
            "store": {"max_size": 4, "fingerprint_bits": 6},
            "endpoints": ["forward"],
            "train": {"epochs": 1},
        },
    )
    run = ondevice.train(config, tmp_path / "run")
    (exported,) = export_run(run.path, check=False)
    assert 0.93 * 7_400 < exported.bundle.total_bytes <= 7_400
    assert set(ondevice.load_bundle(exported.bundle.path).vocabulary.fingerprint_bits().values()) == {6}
    keys = ExportOptions(fingerprint_bits=0)
    (whole,) = export_run(run.path, output=tmp_path / "whole", options=keys, check=False)
    assert not whole.packed.order.fingerprints
    assert whole.bundle.total_bytes > exported.bundle.total_bytes
    measure = Settings(rounds=1, cold_starts=1, candidates=(1,), threads=(1,), baselines=("fp32",))
    entry = run_benchmark(run, settings=measure, say=lambda _: None)["budgets"]["7400B"]
    assert entry["parity"]["eager_vs_packed"] < 1e-5
    assert entry["parity"]["int8_vs_pte_max_abs"] < 0.01
    assert entry["test_auc"] == pytest.approx(entry["parity"]["test_auc_pte"], abs=1e-9)
    assert entry["keys"]["num_keys"] == whole.bundle.vocabulary.num_keys()
    assert json.loads((run.path / "report.json").read_text())["budgets"]["7400B"]["keys"] == entry["keys"]
