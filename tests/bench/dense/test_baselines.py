"""The dense programs that torchao and ExecuTorch make alone, against the eager model they come from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ondevice.bench.dense.baselines import FORMATS, DenseProgram, make_baseline
from ondevice.bench.measure.runtime import Program
from ondevice.errors import UserError
from ondevice.recommender import Recommender

from ..conftest import rows_of, small_recommender


def logits_of(program, ids: torch.Tensor) -> torch.Tensor:
    (scores,) = Program(program).run("forward", ids)
    return torch.logit(scores.double())


def sqnr_db(reference: torch.Tensor, other: torch.Tensor) -> float:
    noise = (reference.double() - other.double()).square().sum()
    return float(10 * torch.log10(reference.double().square().sum() / noise))


@torch.no_grad()
def test_the_plain_module_equals_the_recommender(dense: Recommender) -> None:
    ids = rows_of(dense, 50)
    module = DenseProgram(dense)
    torch.testing.assert_close(module(ids), torch.sigmoid(dense(ids)), atol=1e-6, rtol=0)
    assert not any(isinstance(part, (nn.BatchNorm1d, nn.Dropout)) for part in module.modules())


@torch.no_grad()
def test_fp32_program_equals_eager(dense: Recommender, programs: dict) -> None:
    ids = rows_of(dense, 64)
    (scores,) = Program(programs["fp32"]).run("forward", ids)
    torch.testing.assert_close(scores, torch.sigmoid(dense(ids)), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "least_db", "most_db"), [("int8", 35, 65), ("int4", 12, 30), ("int2", 2, 12)]
)
def test_quantized_programs_lose_what_their_bits_lose(
    dense: Recommender, programs: dict, name: str, least_db: float, most_db: float
) -> None:
    ids = rows_of(dense, 64)
    got = sqnr_db(dense(ids), logits_of(programs[name], ids))
    assert least_db < got < most_db


@torch.no_grad()
@pytest.mark.parametrize("name", FORMATS)
def test_programs_equal_the_module_they_were_lowered_from(
    dense: Recommender, baselines, programs, name: str
) -> None:
    ids = rows_of(dense, 64)
    (scores,) = Program(programs[name]).run("forward", ids)
    torch.testing.assert_close(scores, baselines[name].eager(ids), atol=1e-4, rtol=0)


def test_smaller_formats_make_smaller_programs(baselines: dict) -> None:
    sizes = [len(baselines[name].pte) for name in ("fp32", "int8", "int4", "int2")]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4


def test_programs_take_one_row_and_the_most(dense: Recommender, programs: dict) -> None:
    program = Program(programs["int8"])
    for count in (1, 64):
        assert program.run("forward", rows_of(dense, count))[0].shape == (count,)


def test_fm_has_no_linears_to_quantize() -> None:
    recommender = small_recommender("fm")
    assert make_baseline(recommender, "int8", max_batch=8).pte


def test_a_quantization_that_changes_nothing_raises(
    dense: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchao.quantization.quantize_", lambda *args, **kwargs: None)
    with pytest.raises(RuntimeError, match=r"quantized 0 of 1 embedding tables: \['embedding'\]"):
        make_baseline(dense, "int8")


def test_a_lowering_that_delegates_nothing_raises(
    dense: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    import executorch.backends.xnnpack.partition.xnnpack_partitioner as partitioner
    from executorch.backends.xnnpack.partition.config.generic_node_configs import MeanDimConfig

    original = partitioner.XnnpackPartitioner
    monkeypatch.setattr(partitioner, "XnnpackPartitioner", lambda: original(configs=[MeanDimConfig]))
    with pytest.raises(RuntimeError, match="nothing was delegated"):
        make_baseline(dense, "fp32")


def test_pruned_recommenders_are_no_dense_baseline() -> None:
    recommender = small_recommender("fm")
    recommender.is_mapped = True
    with pytest.raises(ValueError, match="remaps ids"):
        DenseProgram(recommender)


def test_rows_that_do_not_fill_bytes_are_refused() -> None:
    with pytest.raises(UserError, match=r"int2 packs 4 values a byte: embedding\.dim 6"):
        make_baseline(small_recommender("fm", dim=6), "int2")


def test_unknown_formats_name_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'int8'"):
        make_baseline(small_recommender("fm"), "int08")
