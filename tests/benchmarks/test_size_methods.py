from __future__ import annotations

import pytest

from benchmarks.size_methods import CASES, summary
from ondevice.config.file import load
from ondevice.run.preflight import check_options


def test_mean_and_spread_by_case_and_budget() -> None:
    runs = {
        "pep loss-0": {"64KB": {"bytes": 10.0}, "32KB": {"bytes": 3.0}},
        "uniform-0": {"64KB": {"bytes": 7.0}},
        "pep loss-1": {"64KB": {"bytes": 12.0}},
    }
    assert summary(runs) == {
        "pep loss 64KB": {"bytes": {"mean": 11.0, "std": 2.0**0.5}},
        "pep loss 32KB": {"bytes": {"mean": 3.0}},
        "uniform 64KB": {"bytes": {"mean": 7.0}},
    }


@pytest.mark.parametrize("case", CASES)
def test_every_case_is_a_configuration(case: str) -> None:
    check_options(load("train/configs/movielens_1m_deepfm_pep.yaml", CASES[case]))
