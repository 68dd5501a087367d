"""In place, in float64: matrices and a norm's affine move into the layers beside them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.models.attention import Affine
from vitdfq.models.norms import NORMS, RMS_NORMS

Layer = nn.Linear | nn.Conv2d
Norm = type[nn.LayerNorm] | type[nn.RMSNorm]


def layer_at(model: nn.Module, name: str) -> Layer:
    """Return the linear layer or convolution of that name; a family that names another module is wrong: AssertionError."""
    layer = model.get_submodule(name)
    assert isinstance(layer, Layer), f"{name} is a {type(layer).__name__}"
    return layer


def rotate_output(layer: Layer, matrix: Tensor) -> None:
    """Make a layer write matrix @ y where it wrote y (out,)."""
    matrix = matrix.to(layer.weight.device)
    rotated = matrix @ layer.weight.double().flatten(1)
    layer.weight.copy_(rotated.view_as(layer.weight))
    if layer.bias is not None:
        layer.bias.copy_(matrix @ layer.bias.double())


def rotate_input(linear: Layer, q: Tensor) -> None:
    """Make a linear layer read q @ x where it read x (in,); q is orthogonal."""
    linear.weight.copy_(linear.weight.double() @ q.T.to(linear.weight.device))


def absorb_norm(norm: nn.Module, readers: Sequence[Layer], q: Tensor, kind: Norm) -> nn.Module:
    """Move a norm's affine into the linear layers that read it; these read q @ x from now on. Return the bare norm, a `kind`."""
    gain, shift = affine_of(norm)
    for reader in readers:
        weight = reader.weight.double()
        if shift is not None:
            _add_bias(reader, (weight @ shift).to(reader.weight.dtype))
        reader.weight.copy_((weight * gain) @ q.T.to(weight.device))
    return bare_norm(norm, kind)


def bare_norm(norm: Any, kind: Norm) -> nn.Module:
    """Return a norm of the same channels without affine, a `kind`."""
    return kind(list(norm.normalized_shape), eps=norm.eps, elementwise_affine=False)


def norm_then(norm: Any, matrix: Tensor, kind: Norm, undo: Tensor | None = None) -> nn.Sequential:
    """Return x -> matrix (gain · n(undoᵀ x) + shift) as a bare norm and one `Affine` (D, D), which stays in float at run time."""
    gain, shift = affine_of(norm)
    matrix = matrix.to(gain.device)
    weight, dtype = matrix * gain, norm.weight.dtype
    if undo is not None:
        weight = weight @ undo.T.to(gain.device)
    affine = Affine(weight.to(dtype), None if shift is None else (matrix @ shift).to(dtype))
    return nn.Sequential(bare_norm(norm, kind), affine)


def norm_alone(pair: nn.Sequential, matrix: Tensor, undo: Tensor | None = None) -> nn.Module:
    """Return one norm with affine for what `norm_then` returned; the matrix is orthogonal, or one that also centers.

    Each gain is that by which the matrix's column comes nearest to the affine's.
    """
    bare, affine = pair
    assert isinstance(bare, nn.LayerNorm | nn.RMSNorm) and isinstance(affine, Affine) and bare.eps is not None
    matrix, weight = matrix.to(affine.weight.device), affine.weight.double()
    if undo is not None:
        weight = weight @ undo.to(weight.device)
    kind = nn.RMSNorm if affine.bias is None else nn.LayerNorm
    norm: Any = kind(list(bare.normalized_shape), eps=bare.eps).to(affine.weight).requires_grad_(False)
    norm.weight.copy_((matrix * weight).sum(0) / matrix.square().sum(0))
    if affine.bias is not None:
        norm.bias.copy_(matrix.T @ affine.bias.double())
    return norm


def affine_of(norm: Any) -> tuple[Tensor, Tensor | None]:
    """Return gain and shift of a norm, each (D,), float64; an RMSNorm has no shift, a LayerNorm without bias one of zeros."""
    gain = norm.weight.double()
    if isinstance(norm, RMS_NORMS):
        return gain, None
    return gain, torch.zeros_like(gain) if norm.bias is None else norm.bias.double()


def has_affine(norm: nn.Module) -> bool:
    """Return whether this is a LayerNorm or an RMSNorm with its gain still in place."""
    return isinstance(norm, NORMS) and norm.weight is not None


def _add_bias(layer: Layer, bias: Tensor) -> None:
    if layer.bias is None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    else:
        layer.bias.add_(bias)
