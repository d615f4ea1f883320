"""A manifest whose hash is right and whose entries are not: refused in one line, or as good as another."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ondevice.bundle import manifest as manifests
from ondevice.bundle.json_object import parse
from ondevice.errors import UserError
from ondevice.program.bundle import load_bundle
from ondevice.program.export import Exported

CONTEXT = {"user": 12, "zip": "02138", "hour": 1500}
DELETED = object()
WRONG: list[Any] = [
    *(DELETED, None, True, -1, 0, 3, 2**31, 2**64, 10**400, 0.5, "", "x", "film"),
    *([], [None], ["x"], [[]], [{}], [0, 0], {}, {"x": 1}, {"x": {}}, {"x": None}),
]
Path_ = tuple[Any, ...]


@pytest.fixture(scope="module")
def folder(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported.bundle.write(tmp_path_factory.mktemp("resealed") / "bundle").path


@pytest.fixture(scope="module")
def manifest(folder: Path) -> dict[str, Any]:
    return {
        key: value
        for key, value in json.loads((folder / "manifest.json").read_text()).items()
        if key not in ("sha256", "format", "format_version")
    }


def entries(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """Where every entry of a JSON value is."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inside:
        yield (*at, name)
        yield from entries(each, (*at, name))


def changed(manifest: dict[str, Any], at: Path_, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(manifest)
    holder: Any = values
    for name in at[:-1]:
        holder = holder[name]
    if value is DELETED:
        del holder[at[-1]]
    else:
        holder[at[-1]] = value
    return values


def use(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether the bundle with another manifest can be used; whatever it raises but a UserError gets out."""
    (folder / "manifest.json").write_bytes(manifests.seal(manifest))
    try:
        bundle = load_bundle(folder)
    except UserError:
        return False
    for call in (
        lambda: bundle.score({**CONTEXT, "film": 7}),
        lambda: bundle.rank(CONTEXT, [7, {"genre": "Drama"}]),
        lambda: bundle.recommend(CONTEXT),
        bundle.check_golden,
    ):
        try:
            result = call()
        except UserError:
            continue
        assert isinstance(result, float) or len(result) > 0
    return True


@pytest.mark.parametrize(
    "wrong", WRONG, ids=lambda value: "deleted" if value is DELETED else repr(value)[:12]
)
def test_any_entry_may_be_of_another_type(folder: Path, manifest: dict[str, Any], wrong: Any) -> None:
    assert use(folder, manifest)
    places = list(entries(manifest))
    assert len(places) > 100
    for at in places:
        use(folder, changed(manifest, at, wrong))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), value=json_values)
def test_anything_may_stand_anywhere(
    folder: Path, manifest: dict[str, Any], data: st.DataObject, value: Any
) -> None:
    at = data.draw(st.sampled_from(list(entries(manifest))))
    try:
        use(folder, changed(manifest, at, value))
    except ValueError as error:
        if not str(error).startswith(
            "Out of range float"
        ):  # JSON has no infinity, so that none can be sealed
            raise


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (("num_rows",), -1, "num_rows must be an integer of 0 to 2147483647"),
        (("num_rows",), True, "num_rows must be an integer"),
        (("num_rows",), DELETED, "num_rows is missing"),
        (("methods",), {}, "methods must be an object with one of forward, rank, recommend"),
        (("methods", "forward", "max_batch"), -1, r"methods\.forward\.max_batch must be an integer of 1 to"),
        (
            ("methods", "rank", "inputs", 0, "dtype"),
            "int32",
            r"methods\.rank\.inputs\[0\]\.shape must be that of a",
        ),
        (
            ("methods", "rank", "inputs", 0, "shape", 1),
            4,
            r"methods\.rank\.inputs must be matrices of the schema",
        ),
        (
            ("methods", "recommend", "outputs"),
            [],
            r"methods\.recommend\.outputs must be tensors of float32 and",
        ),
        (("ops",), "all", "ops must be a list"),
        (("backends",), [1], "backends must be a list of texts"),
        (("golden",), [], "golden must be two cases or more"),
        (("golden", 0, "ids", 0), 10**6, r"golden\[0\]\.ids must be 5 rows of 0 to"),
        (("files",), {}, "files must be an object with model.pte"),
        (("files", "model.pte", "sha256"), "0", r"files\.model\.pte\.sha256 must be 64 hexadecimal digits"),
        (("catalog",), DELETED, "catalog must be there where the bundle lists items"),
        (("catalog", "key_field"), "user", r"catalog\.key_field must be the schema's item_key"),
        (("schema", "item_key"), [], r"schema\.item_key must be a text"),
        (("schema", "fields"), {}, r"schema\.fields must be a list"),
        (("labels",), {"age": {"1": "young"}}, "labels must be an object of fields, where 'age' is none"),
    ],
)
def test_what_is_wrong_is_named(
    folder: Path, manifest: dict[str, Any], at: Path_, value: Any, message: str
) -> None:
    (folder / "manifest.json").write_bytes(manifests.seal(changed(manifest, at, value)))
    with pytest.raises(UserError, match=rf"manifest\.json: {message}"):
        load_bundle(folder)


def test_depth_is_limited(folder: Path, manifest: dict[str, Any]) -> None:
    def nested(levels: int) -> Any:
        return [] if levels == 1 else [nested(levels - 1)]

    raw = {**manifest["golden"][0], "raw": {"user": nested(60)}}
    assert use(folder, {**manifest, "golden": [raw, *manifest["golden"][1:]]})
    for levels in (62, 900):
        raw["raw"] = {"user": nested(levels)}
        (folder / "manifest.json").write_bytes(manifests.seal({**manifest, "golden": [raw] * 2}))
        with pytest.raises(UserError, match=r"not JSON \(more than 64 levels"):
            load_bundle(folder)
    (folder / "manifest.json").write_bytes(b"[" * 10**6)
    with pytest.raises(UserError, match="not JSON"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "'a' is there twice"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b'{"a": 1e999}', "1e999 is beyond a double"),
        (b'{"a": ' + b"9" * 5000 + b"}", "9999 is beyond a double"),
        (b"\xff", "utf-8"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
        (b"", "Expecting value"),
    ],
)
def test_json_is_read_strictly(text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)
