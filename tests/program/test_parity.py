"""Link by link: each difference is measured where it arises."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from ondevice.data import Dataset
from ondevice.program.export import Exported, _check_parity
from ondevice.program.parity import parity
from ondevice.training.metrics import auc


def measure(made: Exported, data: Dataset, **changed: object) -> dict[str, float]:
    made = dataclasses.replace(made, **changed)  # type: ignore[arg-type]
    return parity(made.recommender, made.packed, made.quantized, made.bundle, data.test)


def test_the_links_of_an_exported_model(exported: Exported, data: Dataset) -> None:
    result = measure(exported, data)
    assert result["eager_vs_packed"] < 1e-5
    assert 30 < result["packed_vs_int8_sqnr_db"] < 80
    assert result["int8_vs_pte_max_abs"] < 0.01
    assert result["rows"] == 400
    ids = torch.from_numpy(np.asarray(data.test.ids, dtype=np.int64))
    with torch.no_grad():
        eager = auc(np.array(data.test.labels), exported.recommender(ids))
    assert result["test_auc_eager"] == pytest.approx(eager, abs=1e-9)
    assert result["test_auc_pte"] == pytest.approx(eager, abs=0.02)
    assert exported.parity == result
    _check_parity(result)


def test_a_wrong_link_shows_where_it_is(exported: Exported, data: Dataset) -> None:
    eager = copy.deepcopy(exported.recommender)
    with torch.no_grad():
        eager.bias += 1
    off = measure(exported, data, recommender=eager)
    assert off["eager_vs_packed"] == pytest.approx(1, abs=1e-4)
    with pytest.raises(RuntimeError, match="eager_vs_packed"):
        _check_parity(off)

    quantized = copy.deepcopy(exported.quantized)
    quantized.bias += 1
    off = measure(exported, data, quantized=quantized)
    assert off["packed_vs_int8_sqnr_db"] < 20
    assert off["int8_vs_pte_max_abs"] > 0.1
    with pytest.raises(RuntimeError, match="int8_vs_pte_max_abs"):
        _check_parity(off)


def test_a_program_whose_scores_are_off_by_a_tenth_is_refused(
    exported: Exported, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each link by itself: what XNNPACK rounds otherwise is a step of 255, a tenth is another program."""
    _check_parity({**exported.parity, "int8_vs_pte_max_abs": 0.01})
    for wrong in (0.1, 0.03, float("nan")):
        with pytest.raises(
            RuntimeError, match=f"the exported program is wrong: int8_vs_pte_max_abs is {wrong}"
        ):
            _check_parity({**exported.parity, "int8_vs_pte_max_abs": wrong})
    _check_parity({**exported.parity, "eager_vs_packed": 5e-4})
    with pytest.raises(RuntimeError, match="the exported program is wrong: eager_vs_packed is"):
        _check_parity({**exported.parity, "eager_vs_packed": 0.01})

    score_rows = type(exported.bundle).score_rows
    monkeypatch.setattr(
        type(exported.bundle), "score_rows", lambda self, rows: np.clip(score_rows(self, rows) + 0.1, 0, 1.1)
    )
    with pytest.raises(RuntimeError, match="int8_vs_pte_max_abs"):
        dataclasses.replace(exported).measure_parity(data)
