"""In place, in float64: matrices and a LayerNorm's affine move into the layers beside them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv2d
Norm = type[nn.LayerNorm] | type[nn.RMSNorm]


class Affine(nn.Module):
    """x (..., in) -> weight (out, in) x + bias (out). Not an nn.Linear, so that `quantize` leaves it in float."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


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


def absorb_norm(norm: nn.LayerNorm, readers: Sequence[Layer], q: Tensor, kind: Norm) -> nn.Module:
    """Move a norm's affine into the linear layers that read it; these read q @ x from now on. Return the bare norm, a `kind`."""
    gain, shift = affine_of(norm)
    for reader in readers:
        weight = reader.weight.double()
        bias = (weight @ shift).to(reader.weight.dtype)
        if reader.bias is None:
            reader.bias = nn.Parameter(bias, requires_grad=False)
        else:
            reader.bias.add_(bias)
        reader.weight.copy_((weight * gain) @ q.T.to(weight.device))
    return kind(list(norm.normalized_shape), eps=norm.eps, elementwise_affine=False)


def norm_then(norm: nn.LayerNorm, matrix: Tensor, kind: Norm, undo: Tensor | None = None) -> nn.Sequential:
    """Return x -> matrix (gain · n(undoᵀ x) + shift) as a bare norm and one `Affine` (D, D), which stays in float at run time."""
    gain, shift = affine_of(norm)
    matrix = matrix.to(gain.device)
    weight = matrix * gain
    if undo is not None:
        weight = weight @ undo.T.to(gain.device)
    affine = Affine(weight.to(norm.weight.dtype), (matrix @ shift).to(norm.weight.dtype))
    return nn.Sequential(absorb_norm(norm, [], matrix, kind), affine)


def norm_alone(pair: nn.Sequential, q: Tensor, undo: Tensor | None = None) -> nn.LayerNorm:
    """Return one LayerNorm with affine for what `norm_then` returned; q is orthogonal."""
    bare, affine = pair
    assert isinstance(bare, nn.LayerNorm | nn.RMSNorm) and isinstance(affine, Affine)
    q = q.to(affine.weight.device)
    gain = q.T @ affine.weight.double()
    if undo is not None:
        gain = gain @ undo.to(gain.device)
    assert bare.eps is not None
    norm = nn.LayerNorm(list(bare.normalized_shape), eps=bare.eps).to(affine.weight).requires_grad_(False)
    norm.weight.copy_(gain.diagonal())
    norm.bias.copy_(q.T @ affine.bias.double())
    return norm


def affine_of(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Return gain and shift of a norm, each (D,), float64."""
    gain = norm.weight.double()
    return gain, torch.zeros_like(gain) if norm.bias is None else norm.bias.double()


def has_affine(norm: nn.Module) -> bool:
    """Return whether this is a LayerNorm with its gain still in place."""
    return isinstance(norm, nn.LayerNorm) and norm.weight is not None
