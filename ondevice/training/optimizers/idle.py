"""What Adam does to a row while no batch looks it up: in closed form, or step by step where there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ondevice.forms.fused import fused
from ondevice.forms.rows import copy_rows_

CAPACITY = 1 << 14
"""Steps that may pass before every row must be brought up to date."""
_NEGLIGIBLE = 1e-9
"""Share of a row's first idle move below which later ones are left out."""
_AT_REST = 1e-8
"""A value with less than this way to go is taken to be at rest."""
_TINY = 1e-30
"""Added below a root: of 0, which rows have until they are first looked up, it takes twenty times as long."""
AT_ONCE = 8192
"""Rows worked on together on a CPU: few enough that all passes over them stay in its own cache."""
_REPLAYED_AT_ONCE = 64
"""Steps made again before rows at rest are looked for."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a parameter with their moments, and of its moving average where one is kept.

    Shape: each (U, D).
    """

    weight: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    average: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """All of them, in a fixed order."""
        columns = [self.weight, self.exp_avg, self.exp_avg_sq]
        return columns if self.average is None else [*columns, self.average]

    def at(self, places: Tensor) -> Rows:
        """Copies of the rows at ``places``."""
        return Rows(*(tensor.index_select(0, places) for tensor in self.tensors()))

    def head(self, count: int) -> Rows:
        """The first ``count`` rows, not copied."""
        return Rows(*(tensor[:count] for tensor in self.tensors()))

    def put_(self, places: Tensor, rows: Rows) -> None:
        """Write ``rows`` to ``places``, all different."""
        for tensor, values in zip(self.tensors(), rows.tensors(), strict=True):
            copy_rows_(tensor, places, values)


@dataclass(frozen=True)
class AdamStep:
    """One step of Adam.

    Args:
        number: which one, from 1.
        lr: learning rate.
        decay: weight decay λ.
        decoupled: whether λ acts on the weights (AdamW) or is part of the gradient (L2).
    """

    number: int
    lr: float
    decay: float
    decoupled: bool
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def apply_(self, rows: Sequence[Rows], gradients: Sequence[Tensor]) -> None:
        """Make the step on rows, in place, by the kernel of ``torch.optim.Adam(fused=True)``."""
        kernel = torch._fused_adamw_ if self.decoupled else torch._fused_adam_
        number = torch.full((), float(self.number), device=rows[0].weight.device)
        kernel(
            [r.weight for r in rows],
            list(gradients),
            [r.exp_avg for r in rows],
            [r.exp_avg_sq for r in rows],
            [],
            [number] * len(rows),
            lr=self.lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )


class IdleSteps:
    """The steps since all rows were up to date, as they act on a row that was not looked up.

    While its gradient is zero, a row's moments decay and its weight goes on moving by them. With j = i − l
    steps since the last lookup, c_i = 1 − β₁^i, d_i = 1 − β₂^i and δ_i = 1 − lr_i·λ (decoupled decay):

        m_i = β₁^j m_l,   v_i = β₂^j v_l,   w_i = δ_i w_{i−1} − (lr_i / c_i) m_i / (√(v_i / d_i) + ε)

    so that w_t = Δ w_l − m_l Σ_i a_i / (√v_l + ε b_i), where b_i = √d_i β₂^(−j/2) and a_i = b_i β₁^j lr_i / c_i,
    times the δ that follow. The b_i differ little over the few dozen steps that count, so the sum over them is
    taken at two values that have its first four moments (Gauss quadrature), with mean b̄, deviation √(r² − h²)
    and skew h:

        Σ_i a_i / (√v + ε b_i) ≈ A (u + ε h) / (u² − ε² r²),   A = Σ a_i,   u = √v + ε (b̄ + h)

    It is exact where √v is large against ε. One set of moments for each l serves every row. A moving average of w
    is linear in the same terms; it is taken with the same moments, which is right to second order.

    Args:
        betas: β₁ and β₂ of Adam.
        eps: ε of Adam.
        device: where the rows are.
    """

    def __init__(self, betas: tuple[float, float], eps: float, device: torch.device) -> None:
        self.betas, self.eps = betas, eps
        self.at_once = AT_ONCE if device.type == "cpu" else 1 << 24
        beta1, beta2 = betas
        window = math.ceil(math.log(_NEGLIGIBLE) / math.log(beta1 / math.sqrt(beta2)))
        ages = torch.arange(window, 0, -1, dtype=torch.float64, device=device)
        growth = beta2 ** (-ages / 2)
        self._moves = beta1**ages * growth
        self._powers = torch.stack([growth**k for k in range(4)], 1)
        gaps = torch.arange(CAPACITY + 1, dtype=torch.float64, device=device)
        self._decays = torch.stack([beta1**gaps, beta2**gaps], 1).float()
        # for each step l since the reset:
        self._sums = torch.zeros(CAPACITY + 1, 4, dtype=torch.float64, device=device)  # Σ a_i b_i^k / Δ
        self._kept_at = torch.ones(CAPACITY + 1, dtype=torch.float64, device=device)  # Δ from the reset to l
        self._factors = torch.zeros(CAPACITY + 1, 4, device=device)  # ε (b̄ + h), ε h, −(ε r)², A / Δ
        self._shares = torch.zeros(
            CAPACITY + 1, 3, dtype=torch.float64, device=device
        )  # of the average, w_l, m_l
        self.reset()

    def reset(self) -> None:
        """All rows are up to date."""
        self.count = 0
        self._kept = 1.0
        self._sums.zero_()
        self._factors.zero_()[:, 0] = self.eps
        self._shares.zero_()[:, 0] = 1.0

    def record(self, step: AdamStep) -> None:
        """Note a step that was made."""
        if step.decoupled:
            self._kept *= 1 - step.lr * step.decay
        scale = math.sqrt(1 - self.betas[1] ** step.number)
        size = max(step.lr, 1e-30) * scale / (1 - self.betas[0] ** step.number) / self._kept
        reach = min(len(self._moves), self.count + 1)
        recent = slice(self.count + 1 - reach, self.count + 1)
        scales = torch.tensor(
            [size * scale**k for k in range(4)], dtype=torch.float64, device=self._sums.device
        )
        sums = self._sums[recent].addcmul_(self._moves[-reach:, None] * scales, self._powers[-reach:])
        first, second, third = (sums[:, 1:] / sums[:, :1]).unbind(1)
        variance = (second - first.square()).clamp(min=0.0)
        skew = (third - 3 * first * second + 2 * first**3) / (2 * variance)
        skew = torch.where(
            variance > 1e-12 * second, skew, 0.0
        )  # none, but for rounding, where one step counts
        factors = [first + skew, skew, -(variance + skew.square()) * self.eps, sums[:, 0] / self.eps]
        self._factors[recent] = torch.stack(factors, 1).mul_(self.eps).float()
        self.count += 1
        self._kept_at[self.count] = self._kept

    def average(self, share: float) -> None:
        """Note that an average took (1 − ``share``)·w after the last step, keeping ``share`` of itself."""
        known = slice(0, self.count + 1)
        taken = (1 - share) * self._kept
        self._shares[known] *= share
        self._shares[known, 1] += taken / self._kept_at[known]
        self._shares[known, 2] += taken * self._sums[known, 0]

    def settle_(self, last: Tensor, rows: Sequence[Rows]) -> None:
        """Bring rows last updated at steps ``last`` (counted from the reset) up to date, in place.

        Shape: last (U,) int32.
        """
        factors = self._factors.index_select(0, last).t().contiguous()
        factors[3] *= self._kept
        decays = self._decays.index_select(0, self.count - last).t().contiguous()
        kept = shares = None
        if self._kept != 1.0:
            # in float64: a row that was looked up just now keeps all of its weight
            kept = (self._kept / self._kept_at.index_select(0, last)).float()[:, None]
        if any(r.average is not None for r in rows):
            shares = self._shares.index_select(0, last)
            shares[:, 2].div_(self._sums.index_select(0, last)[:, 0]).div_(self._kept).nan_to_num_(0.0)
            shares = shares.float()
        for r in rows:
            _settle_(r.weight, r.exp_avg, r.exp_avg_sq, factors, decays, kept, r.average, shares)


@fused
def _settle_(
    weight: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    factors: Tensor,
    decays: Tensor,
    kept: Tensor | None,
    average: Tensor | None,
    shares: Tensor | None,
) -> None:
    """The idle steps of `IdleSteps`, in place.

    Shape: factors (4, U), with A/Δ times the δ that follow; decays (2, U); kept (U, 1), None for ones; shares
    (U, 3) of the average, of w_l and of the move.
    """
    center, skew, spread, tail = factors[:, :, None].unbind(0)
    root = exp_avg_sq.add(_TINY).sqrt_().add_(center)
    below = torch.addcmul(spread, root, root)
    move = root.add_(skew).mul_(exp_avg).mul_(tail)
    if average is not None and shares is not None:
        average.mul_(shares[:, :1]).addcmul_(shares[:, 1:2], weight)
        average.addcdiv_(move * shares[:, 2:], below, value=-1.0)
    if kept is not None:
        weight.mul_(kept)
    weight.addcdiv_(move, below, value=-1.0)
    exp_avg.mul_(decays[0, :, None])
    exp_avg_sq.mul_(decays[1, :, None])


class ReplayedSteps:
    """The same for coupled decay, where the gradient of an idle row is λw and no closed form is known.

    Every idle step is made again on the rows that missed it, until they have come to rest at zero. That is
    arithmetic for every step missed, but each row is read and written once.
    """

    at_once = 1 << 16  # each step missed costs a few calls, for however many rows

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """All rows are up to date."""
        self._steps: list[AdamStep] = []
        self._shares: dict[int, float] = {}

    @property
    def count(self) -> int:
        """Steps since all rows were up to date."""
        return len(self._steps)

    def record(self, step: AdamStep) -> None:
        """Note a step that was made."""
        self._steps.append(step)

    def average(self, share: float) -> None:
        """Note that an average took (1 − ``share``)·w after the last step, keeping ``share`` of itself."""
        self._shares[self.count] = share

    def settle_(self, last: Tensor, rows: Sequence[Rows]) -> None:
        """Bring rows last updated at steps ``last`` (counted from the reset) up to date, in place.

        Shape: last (U,) int32.
        """
        self._average_of_last(last, rows)
        last, places = last.long().sort(stable=True)  # those that missed most come first
        behind = int((last < self.count).sum())
        last, places = last[:behind], places[:behind]
        work = [r.at(places) for r in rows]
        while places.numel():
            begin = int(last[0])
            until = min(self.count, begin + _REPLAYED_AT_ONCE)
            numbers = torch.arange(begin + 1, until + 1, device=last.device)
            begun = torch.searchsorted(last, numbers).tolist()
            for number, count in zip(range(begin + 1, until + 1), begun, strict=True):
                self._replay(number, [r.head(count) for r in work])
            last = last.clamp(min=until)
            leaving = last == self.count
            if until < self.count:
                waiting = [r.head(begun[-1]) for r in work]
                leaving[: begun[-1]] = torch.stack([self._at_rest(until, r) for r in waiting]).all(0)
            gone, left = leaving.nonzero().squeeze(1), (~leaving).nonzero().squeeze(1)
            for target, r in zip(rows, work, strict=True):
                target.put_(places[gone], self._rested(until, r.at(gone)))
            work, last, places = [r.at(left) for r in work], last[left], places[left]

    def _average_of_last(self, last: Tensor, rows: Sequence[Rows]) -> None:
        """The averages taken right after each row's own last step."""
        taken = torch.zeros(self.count + 1, device=last.device)
        for number, share in self._shares.items():
            taken[number] = 1 - share
        for r in rows:
            if r.average is not None:
                r.average.lerp_(r.weight, taken.index_select(0, last)[:, None])

    def _replay(self, number: int, rows: list[Rows]) -> None:
        self._steps[number - 1].apply_(rows, [torch.zeros_like(r.weight) for r in rows])
        if number in self._shares:
            for r in rows:
                if r.average is not None:
                    r.average.lerp_(r.weight, 1 - self._shares[number])

    def _at_rest(self, number: int, r: Rows) -> Tensor:
        """Whether all values of a row are so near to zero, and so slow, that they stay there; (U,) bool."""
        step = self._steps[number - 1]
        c, d = (1 - beta**step.number for beta in step.betas)
        speed = r.exp_avg.abs() * (step.lr / c) / ((r.exp_avg_sq / d).sqrt() + step.eps)
        return (r.weight.abs() + speed / (1 - step.betas[0]) < _AT_REST).all(1)

    def _rested(self, number: int, r: Rows) -> Rows:
        """Rows at rest since step ``number``."""
        remaining = self.count - number
        if not remaining:
            return r
        beta1, beta2 = self._steps[number - 1].betas
        r.exp_avg.mul_(beta1**remaining)
        r.exp_avg_sq.mul_(beta2**remaining)
        if r.average is not None:
            shares = [share for at, share in self._shares.items() if at > number]
            r.average.lerp_(r.weight, 1 - math.prod(shares))
        return r
