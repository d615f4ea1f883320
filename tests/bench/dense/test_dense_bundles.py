"""The dense programs as bundles: the same scores from raw values as the model gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ondevice.bench.dense.dense_bundles import export_dense
from ondevice.bundle.rows import RowOrder
from ondevice.config.file import from_dict
from ondevice.errors import UserError
from ondevice.program.bundle import load_bundle
from ondevice.run.pipeline import Pipeline


def test_dense_bundles(tiny_config: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "run"
    pipeline = Pipeline(from_dict(tiny_config()), path)
    pipeline.run()
    said: list[str] = []
    fp32, int8 = export_dense(path, ["fp32", "int8"], catalog=True, say=said.append)
    assert [bundle.path for bundle in (fp32, int8)] == [path / "dense_bundles" / n for n in ("fp32", "int8")]
    assert len(said) == 2

    from ondevice.run.directory import Run

    run = Run(path)
    dataset, dense = run.dataset(), run.dense()
    raw = dataset.raw_rows("test", list(range(20)))
    with torch.no_grad():
        expected = torch.sigmoid(dense(torch.from_numpy(np.array(dataset.test.ids[:20])))).numpy()
    for bundle, tolerance in ((fp32, 1e-5), (int8, 0.05)):
        again = load_bundle(bundle.path)
        assert again.check_golden() == 0
        assert np.abs(np.array(again.score(raw)) - expected).max() < tolerance
        assert again.catalog is not None
        zeros = np.full((1, len(dataset.schema.fields)), again.num_rows)
        assert np.isfinite(again.score_rows(zeros)).all()  # the row of zeros is there
    with pytest.raises(UserError, match="unknown baseline"):
        export_dense(path, ["int7"], say=said.append)


def test_keys_whose_order_as_texts_is_another_than_as_numbers_are_two_groups() -> None:
    ids = np.arange(4)
    every = np.ones(4, dtype=np.int64)
    order = RowOrder(np.array([0, 4]), ids, ids, every, every > 0, [None, "10", "9", "95"])
    (field,) = order.field_keys
    assert [(group.base_row, list(group.keys)) for group in field.groups] == [(1, [10]), (2, [9, 95])]
