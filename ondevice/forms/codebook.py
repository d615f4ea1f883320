"""A codebook and codes for rows of cells, under what each row's errors cost.

Rows are approximated so that Σ_r (x_r − e_r)ᵀ·H_r·(x_r − e_r) is small, e_r the entries of a row's cells one after the
other and H_r the curvature of the loss by that row: an error costs nothing in a direction that no interaction of
the row looks along. A row with more cells than its dimensions fill is refined: the second C cells add entries of the
same codebook, a quarter as large, to those of the first C (residual quantization, Juang and Gray 1982). So are layers
rounded in Optimal Brain Quantization and GPTQ (arXiv 2208.11580, 2210.17323); for rows of a table there is one small
matrix each, which is measured exactly (`training.codes`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_CODES = 256
FIT_ROUNDS = 16
FIT_ROWS = 1 << 17  # from which the codebook is fitted
CHOOSE_ROUNDS = 2
MAX_DISTANCES = 1 << 22  # computed at once
REFINEMENT = 0.25
"""What entries are multiplied by where they refine those of the level before: errors of 255 entries of three dimensions
are about a fifth as large as what they stand for."""


def joined(looked_up: Tensor, dim: int) -> Tensor:
    """Embeddings of the entries of all cells, levels added up: (…, levels · D) -> (…, D)."""
    if looked_up.shape[-1] == dim:
        return looked_up
    levels = looked_up.unflatten(-1, (-1, dim)).unbind(-2)
    return sum((level * REFINEMENT**k for k, level in enumerate(levels) if k), start=levels[0])


def decoded(codes: Tensor, codebook: Tensor, dim: int) -> Tensor:
    """Embeddings (…, D) of the codes (…, K) of rows, K · W a multiple of D; codebook (256, W)."""
    return joined(F.embedding(codes, codebook).flatten(-2), dim)


def fit_codebook(
    values: Tensor, kept: Tensor, weight: Tensor, code_dims: int, curvature: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Codes (R, K) int64 and a codebook (256, W) whose entry 0 is zero, W = ``code_dims``.

    Without curvature by weighted k-means of the cells; with it, from there by turns: each cell's entry is chosen
    with those of the row's other cells as they are, then all entries are solved for at once.

    Shape: values (R, D), kept (R, K) bool, K·W a multiple of D, weight (R,), curvature (R, D, D).
    """
    rows, width = len(values), code_dims
    cells = values.unflatten(1, (-1, width))
    first = kept[:, : cells.shape[1]]
    codebook = values.new_zeros(NUM_CODES, width)
    codebook[1:] = k_means(cells[first], weight[:, None].expand_as(first)[first], NUM_CODES - 1)
    codes = nearest_codes(values, kept, codebook)
    if curvature is None:
        return codes, codebook
    some = slice(None)
    if rows > FIT_ROWS:
        some = torch.randperm(rows)[:FIT_ROWS].to(values.device)  # type: ignore[assignment]
    few = codes[some]
    for _ in range(FIT_ROUNDS):
        few = choose_codes(values[some], curvature[some], kept[some], few, codebook)
        codebook = _solved(values[some], curvature[some], kept[some], few, codebook)
    codes[some] = few
    return choose_codes(values, curvature, kept, codes, codebook), codebook


def nearest_codes(values: Tensor, kept: Tensor, codebook: Tensor) -> Tensor:
    """The nearest entry of each cell that is kept, entry 0 for the others: (R, K) int64.

    Cells that refine have those nearest to what the level before has left.

    Shape: values (R, D), kept (R, K) bool, codebook (256, W).
    """
    codes = torch.zeros_like(kept, dtype=torch.int64)
    columns = values.shape[1] // codebook.shape[1]
    for part in torch.arange(len(kept), device=values.device).split(MAX_DISTANCES // NUM_CODES):
        left = values[part].unflatten(1, (columns, -1))
        for level, keep in enumerate(kept[part].split(columns, 1)):
            entries = codebook * REFINEMENT**level
            distance = entries.square().sum(1) - 2 * (left @ entries.t())
            best = distance.argmin(-1) * keep
            left = left - F.embedding(best, entries)
            codes[part, level * columns : (level + 1) * columns] = best
    return codes


def choose_codes(
    values: Tensor,
    curvature: Tensor,
    kept: Tensor,
    codes: Tensor,
    codebook: Tensor,
    rounds: int = CHOOSE_ROUNDS,
) -> Tensor:
    """Better codes (R, K) for some rows: each cell in turn takes the best entry, the others as they are.

    Entry 0 is for cells that are not kept. What is not kept counts where the curvature joins it with what is.

    Args:
        rounds: over the cells of a row.

    Shape: values (R, D), curvature (R, D, D), kept (R, K) bool, codes (R, K) int64, codebook (256, W).
    """
    dim, width = values.shape[1], codebook.shape[1]
    squares = (codebook[:, :, None] * codebook[:, None, :]).flatten(1)
    parts = []
    for x, h, keep, chosen in zip(
        *(t.split(MAX_DISTANCES // NUM_CODES) for t in (values, curvature, kept, codes)), strict=True
    ):
        chosen = chosen.clone()
        for _ in range(rounds):
            for column in range(keep.shape[1]):
                level, first = divmod(column * width, dim)
                cell, factor = slice(first, first + width), REFINEMENT**level
                rows = keep[:, column].nonzero().squeeze(1) if level else slice(None)
                others = chosen[rows]
                others[:, column] = 0
                missing, near = x[rows] - decoded(others, codebook, dim), h[rows]
                slope = (near[:, cell] @ missing[:, :, None]).squeeze(2)
                cost = factor * near[:, cell, cell].flatten(1) @ squares.t() - 2 * slope @ codebook.t()
                chosen[rows, column] = (cost[:, 1:].argmin(1) + 1) * keep[rows, column]
        parts.append(chosen)
    return torch.cat(parts) if parts else codes


def cell_gains(values: Tensor, curvature: Tensor, codebook: Tensor, columns: int) -> Tensor:
    """What the k-th code of each row takes from ½·(x − e)ᵀ·H·(x − e), with those before it chosen anew: (R, columns).

    Shape: values (R, D), curvature (R, D, D), codebook (256, W).
    """

    def cost(codes: Tensor) -> Tensor:
        missing = values - decoded(codes, codebook, values.shape[1])
        return 0.5 * (missing * (curvature @ missing[:, :, None]).squeeze(2)).sum(1)

    codes = torch.zeros(len(values), columns, dtype=torch.int64, device=values.device)
    costs = [cost(codes)]
    for count in range(1, columns + 1):
        kept = (torch.arange(columns, device=values.device) < count).expand_as(codes)
        codes = choose_codes(values, curvature, kept, codes, codebook)
        costs.append(cost(codes))
    return -torch.stack(costs, 1).diff(dim=1).clamp(max=0)


def _solved(values: Tensor, curvature: Tensor, kept: Tensor, codes: Tensor, codebook: Tensor) -> Tensor:
    """The codebook that costs least with codes as they are; entries that no cell has stay."""
    dim, width = values.shape[1], codebook.shape[1]
    levels = kept.shape[1] * width // dim
    size = NUM_CODES * width
    normal = torch.zeros(size * size, dtype=torch.float64, device=values.device)
    right = torch.zeros(size, dtype=torch.float64, device=values.device)
    place = torch.arange(width, device=values.device)
    factors = REFINEMENT ** torch.arange(levels, device=values.device).repeat_interleave(dim).to(values)
    for x, h, keep, chosen in zip(*(t.split(1 << 14) for t in (values, curvature, kept, codes)), strict=True):
        stored = keep.repeat_interleave(width, 1) * factors
        at = (chosen[:, :, None] * width + place).flatten(1)
        slope = (h @ x[:, :, None]).squeeze(2).repeat(1, levels)
        right.index_add_(0, at.flatten(), (slope * stored).double().flatten())
        joint = h.repeat(1, levels, levels) * stored[:, :, None] * stored[:, None, :]
        normal.index_add_(0, (at[:, :, None] * size + at[:, None, :]).flatten(), joint.double().flatten())
    normal = normal.view(size, size)
    normal.diagonal().add_(1e-6 * normal.diagonal().mean() + 1e-30)
    solution = torch.linalg.solve(normal, right).view(NUM_CODES, width).to(codebook)
    used = torch.zeros(NUM_CODES, dtype=torch.bool, device=values.device)
    used[codes[kept]] = True
    return torch.where(used[:, None], solution, codebook)


@torch.no_grad()
def spread(values: Tensor, weight: Tensor, code_dims: int) -> Tensor:
    """A rotation (D, D) after which dimensions are uncorrelated and each cell has a like share of the variance.

    Principal axes are dealt to the cells there and back, the widest first: a byte then describes as much of the
    row in each cell, and all cells can share a codebook.

    Shape: values (R, D), weight (R,).
    """
    wide = values.double()
    _, axes = torch.linalg.eigh((wide * weight[:, None]).t() @ wide)
    dealt = torch.arange(values.shape[1], device=values.device).view(code_dims, -1)
    dealt[1::2] = dealt[1::2].flip(1)
    return axes.flip(1)[:, dealt.t().flatten()].to(values)


def k_means(points: Tensor, weight: Tensor, num_centers: int, rounds: int = 20) -> Tensor:
    """Centers that minimize the weighted squared distance to the nearest one (Lloyd's algorithm).

    Seeded by weighted draws from PyTorch's own generator. With fewer points than centers the rest is zero.

    Shape: points (P, W), weight (P,) -> (num_centers, W).
    """
    centers = points.new_zeros(num_centers, points.shape[1])
    if not len(points):
        return centers
    chosen = torch.multinomial(weight.float().cpu(), min(num_centers, len(points)))
    centers[: len(chosen)] = points[chosen.to(points.device)]
    for _ in range(rounds):
        distance = centers.square().sum(1) - 2 * (points @ centers.t())
        nearest = distance.argmin(1)
        total = torch.zeros_like(centers).index_add_(0, nearest, points * weight[:, None])
        mass = weight.new_zeros(num_centers).index_add_(0, nearest, weight)
        centers = torch.where(mass[:, None] > 0, total / mass[:, None].clamp(min=1e-12), centers)
    return centers
