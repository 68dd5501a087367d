"""Fold LayerScale and BatchNorm into the layers beside them. A family lists where they stand."""

from collections import OrderedDict
from typing import Any

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
    """Move the running statistics and the affine of BatchNorms into the layers beside them, in place.

    In eval mode BatchNorm is x -> gain x + shift per channel, with gain = weight / sqrt(var + eps). Behind a layer it scales the
    rows of the weight, before one the columns. The layer gets a bias, the BatchNorm becomes Identity, or what it holds besides
    (timm's activation); names stay. A BatchNorm that its family does not list stands beside no layer alone, and stays.
    """
    sites = family_of(model).batch_norms(model)
    before = count_batch_norms(model)
    for site in sites:
        norm = model.get_submodule(site.norm)
        fold = _into_writer if site.follows else _into_reader
        fold(layer_at(model, site.layer), *gain_and_shift(norm))
        model.set_submodule(site.norm, _without_norm(norm))
    if sites:
        _keep_outputs(model)
    if not sites and before:
        return Outcome("folded", "BatchNorm", f"none of {before} stands beside one layer alone")
    if left := before - len(sites):
        return Outcome("folded", f"{len(sites)} of {before} BatchNorms ({left} stand beside no layer alone)")
    return _outcome("BatchNorm", len(sites))


def _outcome(kind: str, count: int) -> Outcome:
    return Outcome("folded", f"{count} {kind}s") if count else Outcome("folded", kind, f"there is no {kind}")


def count_batch_norms(model: nn.Module) -> int:
    """Return how many BatchNorms a model has, of one or two dimensions."""
    return sum(isinstance(part, _BatchNorm) for part in model.modules())


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether the model has a BatchNorm."""
    return count_batch_norms(model) > 0


def gain_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return what a BatchNorm multiplies by and adds in eval mode, each (C,), float64."""
    assert isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
    gain = 1 / (norm.running_var.double() + norm.eps).sqrt()
    gain = gain if norm.weight is None else norm.weight.double() * gain
    shift = -norm.running_mean.double() * gain
    return gain, shift if norm.bias is None else norm.bias.double() + shift


def _without_norm(norm: nn.Module) -> nn.Module:
    """Return what a BatchNorm holds besides, under the same names; Identity where that is nothing."""
    parts = OrderedDict(norm.named_children())
    return nn.Sequential(parts) if parts else nn.Identity()


def _keep_outputs(model: nn.Module) -> None:
    """Let no activation write in place: what a BatchNorm made anew is a layer's own output now, and calibration keeps some."""
    part: Any
    for part in model.modules():
        if getattr(part, "inplace", False) is True:
            part.inplace = False


def _into_writer(layer: Layer, gain: Tensor, shift: Tensor) -> None:
    bias = shift if layer.bias is None else layer.bias.double() * gain + shift
    layer.weight.copy_(layer.weight.double() * gain.view(-1, *[1] * (layer.weight.ndim - 1)))
    _set_bias(layer, bias)


def _into_reader(layer: Layer, gain: Tensor, shift: Tensor) -> None:
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    rows, columns = len(layer.weight) // groups, layer.weight.shape[1]
    weight = layer.weight.double().reshape(groups, rows, columns, -1)
    gain, shift = (part.view(groups, 1, columns, 1) for part in (gain, shift))
    bias = (weight * shift).sum((2, 3)).flatten()
    layer.weight.copy_((weight * gain).view_as(layer.weight))
    _set_bias(layer, bias if layer.bias is None else bias + layer.bias.double())


def _set_bias(layer: Layer, bias: Tensor) -> None:
    layer.bias = nn.Parameter(bias.to(layer.weight.dtype), requires_grad=False)
