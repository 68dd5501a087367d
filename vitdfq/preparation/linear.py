"""In place, in float64: matrices and a LayerNorm's affine move into the linear layers beside them."""

import torch
from torch import Tensor, nn


class Affine(nn.Module):
    """x (..., in) -> weight (out, in) x + bias (out). Not an nn.Linear, so that `quantize` leaves it in float."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


def rotate_output(linear: nn.Module, matrix: Tensor) -> None:
    """Make a Linear or Conv2d write matrix @ y where it wrote y (out,)."""
    matrix = matrix.to(linear.weight.device)
    rotated = matrix @ linear.weight.double().flatten(1)
    linear.weight.copy_(rotated.view_as(linear.weight))
    if linear.bias is not None:
        linear.bias.copy_(matrix @ linear.bias.double())


def rotate_input(linear: nn.Linear, q: Tensor) -> None:
    """Make a Linear read q @ x where it read x (in,); q is orthogonal."""
    linear.weight.copy_(linear.weight.double() @ q.T.to(linear.weight.device))


def absorb_norm(norm: nn.LayerNorm, readers: list[nn.Linear], q: Tensor, kind: type[nn.Module] = nn.LayerNorm) -> nn.Module:
    """Move a norm's affine into the linears that read it, which read q @ x from now on; return the `kind` in its place."""
    gain, shift = affine_of(norm)
    for reader in readers:
        weight = reader.weight.double()
        bias = (weight @ shift).to(reader.weight.dtype)
        if reader.bias is None:
            reader.bias = nn.Parameter(bias, requires_grad=False)
        else:
            reader.bias.add_(bias)
        reader.weight.copy_((weight * gain) @ q.T.to(weight.device))
    return kind(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)


def affine_of(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Return gain and shift of a norm, each (D,), float64."""
    gain = norm.weight.double()
    return gain, torch.zeros_like(gain) if norm.bias is None else norm.bias.double()


def has_affine(norm: nn.Module) -> bool:
    """Return whether this is a LayerNorm with its gain still in place."""
    return isinstance(norm, nn.LayerNorm) and norm.weight is not None
