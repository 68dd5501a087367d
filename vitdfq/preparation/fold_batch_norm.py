"""Fold BatchNorm into the linear layer or convolution beside it."""

from typing import Any

import torch
from timm.models.levit import ConvNorm, LinearNorm, NormLinear
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def fold_batch_norm(model: nn.Module) -> None:
    """Move the running statistics and the affine of every BatchNorm into the layer that writes or reads it, in place.

    In eval mode BatchNorm is x -> gain x + shift per channel, with gain = weight / sqrt(var + eps). Behind a layer (LeViT's
    `LinearNorm`, `ConvNorm`) it scales the rows of the weight, before one (`NormLinear`, the heads) the columns. The layer gets
    a bias, the BatchNorm becomes Identity; names stay. Models without BatchNorm are left as they are.

    Raises:
        ValueError: a BatchNorm of which we do not know which layer it stands beside.
    """
    for part in list(model.modules()):
        if type(part) in FOLDS and isinstance(part.bn, _BatchNorm):
            FOLDS[type(part)](part.linear, *gain_and_shift(part.bn))
            part.bn = nn.Identity()
    left = [name for name, part in model.named_modules() if isinstance(part, _BatchNorm)]
    if left:
        raise ValueError(f"fold_batch_norm works on LeViT's layers only; what stands beside {left[0]} is not known")


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether any BatchNorm, 1d or 2d, is left."""
    return any(isinstance(part, _BatchNorm) for part in model.modules())


def gain_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """Return what a BatchNorm multiplies by and adds in eval mode, each (C,), float64."""
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return gain, norm.bias.double() - norm.running_mean.double() * gain


def _into_writer(layer: Any, gain: Tensor, shift: Tensor) -> None:
    bias = shift if layer.bias is None else layer.bias.double() * gain + shift
    layer.weight.copy_(layer.weight.double() * gain.view(-1, *[1] * (layer.weight.ndim - 1)))
    _set_bias(layer, bias)


def _into_reader(layer: Any, gain: Tensor, shift: Tensor) -> None:
    bias = layer.weight.double() @ shift + (0 if layer.bias is None else layer.bias.double())
    layer.weight.copy_(layer.weight.double() * gain)
    _set_bias(layer, bias)


def _set_bias(layer: Any, bias: Tensor) -> None:
    layer.bias = nn.Parameter(bias.to(layer.weight.dtype), requires_grad=False)


FOLDS = {ConvNorm: _into_writer, LinearNorm: _into_writer, NormLinear: _into_reader}
