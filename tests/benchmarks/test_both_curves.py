"""The README's picture from the committed files: means over seeds, and one that is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.both_curves import main, of_next_item, of_ratings
from ondevice.errors import UserError

FILES = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
PATHS = [FILES / f"movielens_1m_{name}.json" for name in ("careful", "next_item_compact")]


def test_points_are_means_over_the_seeds_that_have_them() -> None:
    def point(name: str, size: int, quality: float) -> dict[str, object]:
        return {"name": name, "bytes": size, "test_ndcg@10": quality}

    first = {"ours": [point("sasrec-9kB", 9000, 0.2)], "careful": [point("d8-int4", 7000, 0.1)]}
    second = {
        "ours": [point("sasrec-9kB", 9200, 0.3)],
        "careful": [point("sasrec-uniform", 70_000, 0.4)],
    }
    curves, dense = of_next_item(
        {"runs": [first, second], "dense": [{"name": "sasrec", "test_ndcg@10": 0.5}]}
    )
    assert curves["ours, self-attention"] == [pytest.approx((9.1, 0.25, 0.0707106781))]
    assert curves["int4"] == [(7.0, 0.1, 0.0)]
    assert curves["uniform"] == [(70.0, 0.4, 0.0)]
    assert dense == {"dense self-attention": 0.5}


def test_the_committed_files_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    main([*map(str, PATHS), "--image", str(tmp_path / "curves.png")])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    curves, dense = of_ratings(json.loads(PATHS[0].read_text()))
    assert {"ours", "int8", "int4", "int2"} <= curves.keys()
    assert "dense, fp32, taught" in dense


def test_files_that_cannot_be_drawn(tmp_path: Path) -> None:
    image = ["--image", str(tmp_path / "x.png")]
    with pytest.raises(UserError, match="cannot be read"):
        main([str(tmp_path / "none.json"), str(PATHS[1]), *image])
    with pytest.raises(UserError, match="has no 'programs'"):
        main([str(PATHS[1]), str(PATHS[0]), *image])
