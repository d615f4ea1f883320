"""Quantization-aware training of the linear layers, by torchao: they compute as they will on the phone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ondevice.errors import ConfigError, MissingPackage
from ondevice.models import BaseModel
from ondevice.models.layers import hidden_linears
from ondevice.models.sequences import SequenceModel
from ondevice.quiet import quiet

BITS = (4, 8)


def prepare(model: BaseModel | SequenceModel, bits: int | None) -> int:
    """Round weights and inputs of the hidden linear layers in every forward from now on; the number of those.

    Weights get ``bits`` bits and a scale per output, inputs int8 with a scale per row (dynamic), gradients pass
    straight through (torchao's ``FakeQuantizedLinear``). The output layer, a single row, stays as it is: it ships
    with int8 weights.

    Args:
        model: whose ``nn.Linear`` modules are replaced, names and weights as before.
        bits: 4 or 8; None to change nothing.

    Raises: UserError: when torchao is not installed, or no layer is there to round.
    """
    if bits is None:
        return 0
    try:
        with quiet():
            from torchao.quantization import quantize_
            from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig
    except ImportError:
        raise MissingPackage(
            "compact.store.linear_bits: torchao, which rounds in training, is not installed; "
            "pip install 'ondevice-recommender[export]', or set compact.store.linear_bits=null"
        ) from None
    dtype = getattr(torch, f"int{bits}")
    config = QATConfig(
        activation_config=IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False),
        weight_config=IntxFakeQuantizeConfig(dtype, "per_channel", is_symmetric=True),
        step="prepare",
    )
    layers = hidden_linears(model)
    model.linear_bits = bits
    if not layers:
        raise ConfigError("compact.store.linear_bits: the model has no hidden linear layer; set it to null")
    with quiet():  # it imports more of torchao
        quantize_(model, config, filter_fn=lambda module, name: module in layers)
    return len(layers)


@torch.no_grad()
def finish(model: nn.Module) -> None:
    """Give layers that `prepare` changed the rounded weights, and make them ordinary again."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            quantizer = getattr(child, "weight_fake_quantizer", None)
            if isinstance(child, nn.Linear) and quantizer is not None:
                plain = nn.Linear(child.in_features, child.out_features, child.bias is not None)
                plain.to(child.weight.device).load_state_dict(child.state_dict())
                rounded: Tensor = quantizer(child.weight)
                plain.weight.copy_(rounded)
                setattr(module, name, plain.train(child.training))
