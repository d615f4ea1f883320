"""Losses of what comes next: the softmax over all items, over drawn ones, and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 8 << 20  # of logits that are worked on together: they stay in a cache
TAUGHT_CHUNK_BYTES = 2 << 20  # where several distributions are, in half the bits


def with_bias(vectors: Tensor, last: Tensor | float, kind: torch.dtype) -> Tensor:
    """Vectors with one value more, so that a product of users with 1 and items with their biases is the score.

    Shape: vectors (R, D), last (R,) or one number -> (R, D + 1) of a type.
    """
    result = torch.empty(len(vectors), vectors.shape[1] + 1, dtype=kind, device=vectors.device)
    result[:, :-1], result[:, -1] = vectors, last
    return result


@dataclass(frozen=True)
class Taught:
    """What is learnt at each place beside its target: the mean of teachers' softened distributions over all items.

    t = α·[target] + (1 − α)·mean_k softmax((u_k·E_kᵀ + b_k) / T)

    Args:
        teachers: of each its users' vectors over T and its items, both `with_bias`: (1 / T, and b_k).
        label_weight: α of each place.

    Shape: users (P, D_k + 1) and items (I, D_k + 1) of one type, label_weight (P,).
    """

    teachers: Sequence[tuple[Tensor, Tensor]]
    label_weight: Tensor

    def targets(self, begin: int, end: int, targets: Tensor) -> Tensor:
        """t of the places ``begin`` … ``end`` − 1, (end − begin, I), with their targets (end − begin, 1)."""
        mean: Tensor | None = None
        for users, items in self.teachers:
            masses = torch.softmax(users[begin:end] @ items.T, 1)
            mean = masses if mean is None else mean.add_(masses)
        assert mean is not None, "one teacher at least"
        weight = self.label_weight[begin:end, None]
        mean *= ((1 - weight) / len(self.teachers)).to(mean.dtype)
        return mean.scatter_add_(1, targets, weight.to(mean.dtype))


class _TaughtSoftmax(Function):
    """Cross entropy with what teachers say, and its gradients, some rows at a time."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        users: Tensor,
        items: Tensor,
        bias: Tensor,
        targets: Tensor,
        kind: torch.dtype,
        taught: Taught,
    ) -> Tensor:
        rows, total = max(1, TAUGHT_CHUNK_BYTES // (4 * len(items))), users.new_zeros(())
        table, asking = with_bias(items, bias, kind), with_bias(users, 1.0, kind)
        user_gradient = torch.empty_like(users)
        item_gradient = torch.zeros(table.shape, device=users.device)
        for begin in range(0, len(users), rows):
            part, target = asking[begin : begin + rows], targets[begin : begin + rows, None]
            scores = part @ table.T
            wanted = taught.targets(begin, begin + len(part), target)
            masses = torch.softmax(scores, 1)
            largest, places = scores.max(1, keepdim=True)
            normalizer = largest.float() - masses.gather(1, places).float().log()
            total += normalizer.sum() - torch.linalg.vecdot(wanted, scores).float().sum()
            errors = masses.sub_(wanted)
            user_gradient[begin : begin + rows] = (errors @ table)[:, :-1]
            item_gradient += errors.T @ part
        ctx.save_for_backward(user_gradient, item_gradient[:, :-1], item_gradient[:, -1])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        users, items, bias = ctx.saved_tensors
        return gradient * users, gradient * items, gradient * bias, None, None, None


class _Softmax(Function):
    """Cross entropy with its gradients, some rows at a time: logits of all rows are never in memory."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, users: Tensor, items: Tensor, bias: Tensor, targets: Tensor, kind: torch.dtype
    ) -> Tensor:
        rows, total = max(1, CHUNK_BYTES // (4 * len(items))), users.new_zeros(())
        table = items.to(kind)
        user_gradient, item_gradient = torch.empty_like(users), torch.zeros_like(items)
        bias_gradient = torch.zeros_like(bias)
        for begin in range(0, len(users), rows):
            part, target = users[begin : begin + rows].to(kind), targets[begin : begin + rows, None]
            logits = (part @ table.T).float().add_(bias)
            largest, right = logits.amax(1, keepdim=True), logits.gather(1, target)
            masses = logits.sub_(largest).exp_()
            sums = masses.sum(1, keepdim=True)
            total += (sums.log() + largest - right).sum()
            errors = masses.div_(sums).scatter_add_(1, target, torch.full_like(right, -1.0))
            bias_gradient += errors.sum(0)
            low = errors.to(kind)
            user_gradient[begin : begin + rows] = low @ table
            item_gradient += low.T @ part
        ctx.save_for_backward(user_gradient, item_gradient, bias_gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        users, items, bias = ctx.saved_tensors
        return gradient * users, gradient * items, gradient * bias, None, None


def softmax_loss(
    users: Tensor,
    items: Tensor,
    bias: Tensor,
    targets: Tensor,
    precision: str = "float32",
    taught: Taught | None = None,
) -> Tensor:
    """Σ_p −log softmax(u_p·Eᵀ + b)[target_p], the sum over the rows; with teachers Σ_p Σ_i −t_pi·log softmax(…)[i].

    Args:
        precision: float32, or bfloat16 for the products; their sums, the softmax and the gradients are float32. With
            teachers the distributions are bfloat16 as well, whose error is a hundredth of what teachers differ by.
        taught: what t is; its vectors have the type of the products.

    Shape: users (P, D), items (I, D), bias (I,), targets (P,) int64.
    """
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    given = (users.float(), items, bias, targets, kind)
    result: Tensor = _Softmax.apply(*given) if taught is None else _TaughtSoftmax.apply(*given, taught)
    return result


def sampled_softmax_loss(
    users: Tensor,
    right: tuple[Tensor, Tensor],
    drawn: tuple[Tensor, Tensor],
    targets: Tensor,
    negatives: Tensor,
    log_expected: Tensor,
) -> Tensor:
    """The softmax against drawn items with the log-Q correction, the sum over the rows.

    −log of e^{s_t} / (e^{s_t} + Σ_{j drawn, j ≠ t} e^{s_j} / E_j), where E_j is how often j is expected among the
    draws: the sum estimates that over all other items without bias (Bengio and Senécal 2008; that the target's own
    score is not corrected: arXiv 2507.09331).

    Args:
        right: embeddings (P, D) and biases (P,) of the targets.
        drawn: embeddings (N, D) and biases (N,) of the drawn items.
        negatives: the drawn items.
        log_expected: log E_j of each.

    Shape: users (P, D), targets (P,), negatives (N,), log_expected (N,).
    """
    positive = (users * right[0]).sum(1, keepdim=True) + right[1][:, None]
    others = torch.addmm(drawn[1] - log_expected, users, drawn[0].T)
    others = others.masked_fill(negatives == targets[:, None], -torch.inf)
    logits = torch.cat([positive, others], 1)
    return F.cross_entropy(logits, targets.new_zeros(len(targets)), reduction="sum")


def bpr_loss(users: Tensor, right: tuple[Tensor, Tensor], wrong: tuple[Tensor, Tensor]) -> Tensor:
    """Σ_p −log σ(s_target − s_drawn), each target against one drawn item (arXiv 1205.2618, equation 4).

    Shape: users (P, D); of each target and of each drawn item the embedding (P, D) and the bias (P,).
    """
    difference = (users * (right[0] - wrong[0])).sum(1) + right[1] - wrong[1]
    return F.softplus(-difference).sum()
