"""Layers that several base models share."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def second_order(embeddings: Tensor) -> Tensor:
    """½·Σ_d [(Σ_f e)² − Σ_f e²]: all pairwise inner products in linear time (Rendle 2010, equation 3).

    Shape: embeddings (B, F, D) -> (B,).
    """
    if torch.is_grad_enabled() and embeddings.requires_grad:
        result: Tensor = _SecondOrder.apply(embeddings)
        return result
    total = embeddings.sum(1)
    return 0.5 * (total.square().sum(1) - embeddings.square().sum((1, 2)))


class _SecondOrder(torch.autograd.Function):
    """`second_order` with its gradient e ↦ Σ_f e − e, which saves two passes over (B, F, D)."""

    @staticmethod
    def forward(ctx, embeddings: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        total = embeddings.sum(1)
        ctx.save_for_backward(embeddings, total)
        flat = embeddings.flatten(1)
        return 0.5 * (torch.linalg.vecdot(total, total) - torch.linalg.vecdot(flat, flat))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        embeddings, total = ctx.saved_tensors
        return (total[:, None] - embeddings).mul_(gradient[:, None, None])


class DNN(nn.Module):
    """Hidden layers of Linear, batch norm, ReLU and dropout, then one output.

    Args:
        in_features: width of the input.
        hidden: width of each hidden layer.
        dropout: probability of zeroing a hidden unit, in [0, 1).
        batch_norm: normalize before each ReLU.

    Shape: (B, in_features) -> (B,).
    """

    def __init__(self, in_features: int, hidden: tuple[int, ...], dropout: float, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers.append(nn.Linear(in_features, width))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width))
            layers.append(nn.ReLU())
            if dropout:
                layers.append(nn.Dropout(dropout))
            in_features = width
        layers.append(nn.Linear(in_features, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.layers(inputs)
        return output.squeeze(-1)

    def folded(self) -> DNN:
        """The same function in evaluation, batch norm folded into the linears and dropout gone."""
        layers: list[nn.Module] = []
        for layer in self.layers:
            if isinstance(layer, nn.BatchNorm1d):
                layers[-1] = fold_batch_norm(layers[-1], layer)
            elif not isinstance(layer, nn.Dropout):
                layers.append(copy.deepcopy(layer))
        other = copy.copy(self)
        other._modules = {"layers": nn.Sequential(*layers)}
        return other.eval()

    @property
    def first(self) -> nn.Linear:
        """The layer that reads the input."""
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        return first

    def without_inputs(self, keep: Tensor) -> DNN:
        """The same function of the inputs at ``keep`` (K,) int64, when all others are zero."""
        other = copy.deepcopy(self)
        first = other.first
        narrow = nn.Linear(keep.numel(), first.out_features)
        with torch.no_grad():
            narrow.weight.copy_(first.weight[:, keep])
            narrow.bias.copy_(first.bias)
        other.layers[0] = narrow
        return other


def fold_batch_norm(linear: nn.Module, norm: nn.BatchNorm1d) -> nn.Linear:
    """One linear equal to ``norm(linear(x))`` in evaluation."""
    assert isinstance(linear, nn.Linear)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps) * (norm.weight if norm.affine else 1.0)
    shift = norm.bias if norm.affine else torch.zeros_like(norm.running_mean)
    folded = nn.Linear(linear.in_features, linear.out_features)
    with torch.no_grad():
        folded.weight.copy_(linear.weight * scale[:, None])
        folded.bias.copy_((linear.bias - norm.running_mean) * scale + shift)
    return folded


class FlatInputs(nn.Module):
    """Embeddings flattened to (B, K), with the columns that are always zero left out.

    Args:
        num_fields: number of fields F.
        embedding_dim: dimension D.
        field_dims: dimensions in use per field; None for all.

    Shape: (B, F, D) -> (B, K).
    """

    def __init__(self, num_fields: int, embedding_dim: int, field_dims: list[int] | None = None) -> None:
        super().__init__()
        used = torch.arange(embedding_dim)[None, :] < torch.tensor(
            field_dims if field_dims is not None else [embedding_dim] * num_fields
        ).unsqueeze(1)
        self.register_buffer("columns", used.flatten().nonzero().squeeze(1), persistent=False)
        self.all_used = bool(used.all())

    columns: Tensor

    def forward(self, embeddings: Tensor) -> Tensor:
        flat = embeddings.flatten(1)
        return flat if self.all_used else flat.index_select(1, self.columns)


def hidden_linears(model: nn.Module) -> list[nn.Linear]:
    """The linear layers with more than one output."""
    return [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features > 1]
