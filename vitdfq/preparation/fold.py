"""Fold LayerScale and BatchNorm into the layers beside them. A family lists where they stand."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vitdfq.models import family_of
from vitdfq.preparation.linear import Layer, layer_at
from vitdfq.preparation.outcome import Outcome


@torch.no_grad()
def fold_layer_scale(model: nn.Module) -> Outcome:
    """Multiply LayerScale (arXiv 2103.17239) into the linear layer that writes its input, in place.

    A block computes x + gamma * (W y + b); gamma (D,) becomes part of W and b. That is one float operation less at run time;
    scales per channel of the weight absorb gamma exactly.
    """
    sites = family_of(model).layer_scales(model)
    for site in sites:
        path, _, name = site.scale.rpartition(".")
        block = model.get_submodule(path)
        scale = getattr(block, name)
        is_parameter = isinstance(scale, nn.Parameter)
        gamma = scale if is_parameter else scale.gamma
        writer = layer_at(model, site.writer)
        writer.weight.mul_(gamma[:, None])
        if writer.bias is not None:
            writer.bias.mul_(gamma)
        setattr(block, name, None if is_parameter else nn.Identity())
    return _outcome("LayerScale", len(sites))


@torch.no_grad()
def fold_batch_norm(model: nn.Module) -> Outcome:
    """Move the running statistics and the affine of every BatchNorm into the layer beside it, in place.

    In eval mode BatchNorm is x -> gain x + shift per channel, with gain = weight / sqrt(var + eps). Behind a layer it scales the
    rows of the weight, before one the columns. The layer gets a bias, the BatchNorm becomes Identity; names stay.

    Raises:
        ValueError: the family does not list a BatchNorm of the model.
    """
    sites = family_of(model).batch_norms(model)
    listed = {site.norm for site in sites}
    for name, part in model.named_modules():
        if isinstance(part, _BatchNorm) and name not in listed:
            raise ValueError(f"fold_batch_norm works on BatchNorms that a family lists only, not on {name}")
    for site in sites:
        fold = _into_writer if site.follows else _into_reader
        fold(layer_at(model, site.layer), *gain_and_shift(model.get_submodule(site.norm)))
        model.set_submodule(site.norm, nn.Identity())
    return _outcome("BatchNorm", len(sites))


def _outcome(kind: str, count: int) -> Outcome:
    return Outcome("folded", f"{count} {kind}s") if count else Outcome("folded", kind, f"there is no {kind}")


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether the model has a BatchNorm, of one or two dimensions."""
    return any(isinstance(part, _BatchNorm) for part in model.modules())


def gain_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return what a BatchNorm multiplies by and adds in eval mode, each (C,), float64."""
    assert isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return gain, norm.bias.double() - norm.running_mean.double() * gain


def _into_writer(layer: Layer, gain: Tensor, shift: Tensor) -> None:
    bias = shift if layer.bias is None else layer.bias.double() * gain + shift
    layer.weight.copy_(layer.weight.double() * gain.view(-1, *[1] * (layer.weight.ndim - 1)))
    _set_bias(layer, bias)


def _into_reader(layer: Layer, gain: Tensor, shift: Tensor) -> None:
    bias = layer.weight.double() @ shift + (0 if layer.bias is None else layer.bias.double())
    layer.weight.copy_(layer.weight.double() * gain)
    _set_bias(layer, bias)


def _set_bias(layer: Layer, bias: Tensor) -> None:
    layer.bias = nn.Parameter(bias.to(layer.weight.dtype), requires_grad=False)
