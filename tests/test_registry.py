"""Names for classes: entered once, found or answered with the nearest."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondevice.errors import UserError, nearest
from ondevice.registry import Registry, import_siblings


def shapes() -> Registry[type]:
    registry: Registry[type] = Registry("shape")

    @registry.register("square")
    class Square:
        """Four equal sides.

        And more on that.
        """

        def __init__(self, size: float, *, colour: str = "red", filled: bool = False) -> None:
            pass

    @registry.register("circle")
    class Circle:
        pass

    return registry


def test_names_are_found_in_alphabetical_order() -> None:
    registry = shapes()
    assert list(registry) == ["circle", "square"]
    assert registry["square"].__name__ == "Square"
    assert "square" in registry
    assert "oval" not in registry


def test_a_name_taken_twice_is_an_error_and_the_first_stays() -> None:
    registry = shapes()
    first = registry["circle"]
    with pytest.raises(ValueError, match=r"shape 'circle' is registered twice: .*Circle.* and .*object"):
        registry.register("circle")(object)
    assert registry["circle"] is first


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        shapes()["sqare"]
    assert str(caught.value) == ("unknown shape 'sqare' (did you mean 'square'? choose from: circle, square)")
    with pytest.raises(UserError, match=r"unknown shape 'xyz' \(choose from: circle, square\)"):
        shapes()["xyz"]


def test_descriptions_are_first_lines() -> None:
    assert shapes().describe()["square"] == "Four equal sides."


def test_options_are_the_keyword_only_arguments() -> None:
    registry = shapes()
    registry.check_options("square", {"colour": "blue", "filled": True}, "shape")
    with pytest.raises(UserError) as caught:
        registry.check_options("square", {"color": "blue"}, "shape")
    assert str(caught.value) == (
        "shape.color: shape 'square' has no such option (did you mean 'colour'? choose from: colour, filled)"
    )
    with pytest.raises(UserError, match=r"shape\.size: shape 'square' has no such option"):
        registry.check_options("square", {"size": 2}, "shape")
    with pytest.raises(UserError, match="unknown shape 'oval'"):
        registry.check_options("oval", {}, "shape")


def test_nearest_of_nothing() -> None:
    assert nearest("x", []) == "(choose from: nothing)"


def test_a_new_file_registers_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "family_of_files"
    package.mkdir()
    (package / "__init__.py").write_text("from ondevice.registry import Registry\nNAMES = Registry('name')\n")
    (package / "one.py").write_text("from family_of_files import NAMES\nNAMES.register('one')(dict)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import family_of_files  # type: ignore[import-not-found]

    assert list(family_of_files.NAMES) == []
    import_siblings("family_of_files", [str(package)])
    assert list(family_of_files.NAMES) == ["one"]
