"""Affine quantization arithmetic. Codes are integers 0..2^bits - 1; real zero is always a code."""

import torch
from torch import Tensor


def choose_qparams(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Return (scale, zero_point) that cover [low, high]; both have the shape of `low`.

    The range is widened to hold zero. Symmetric grids put zero on the middle code 2^(bits-1). A range of zero width gets
    the smallest normal scale, so that a constant zero tensor stays zero instead of becoming NaN.
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    tiny = torch.finfo(low.dtype).tiny
    if symmetric:
        middle = 2 ** (bits - 1)
        scale = (torch.maximum(-low, high) / (middle - 0.5)).clamp(min=tiny)
        return scale, torch.full_like(scale, middle)
    top = 2**bits - 1
    scale = ((high - low) / top).clamp(min=tiny)
    return scale, (-low / scale).round().clamp(0, top)


def quantize_affine(x: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """Return the integer codes of `x` as a float tensor; `x / scale`, not `x * (1 / scale)`, as exporters compute it."""
    return ((x / scale).round() + zero_point).clamp(0, 2**bits - 1)


def dequantize_affine(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Return the real values of integer codes."""
    return (codes - zero_point) * scale


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """Round `x` to the grid, keeping its dtype; the gradient passes straight through where `x` is not clipped.

    The gradient of `scale` is that of LSQ (arXiv 1902.08153): (code - x/scale) inside the range, the clipped code outside.
    """
    low, high = -zero_point, 2**bits - 1 - zero_point
    if not torch.is_grad_enabled():
        return x.div(scale).round_().clamp_(low, high).mul_(scale)
    return round_straight_through(x / scale).clamp(low, high) * scale


def round_straight_through(x: Tensor) -> Tensor:
    """Round half to even; the gradient is one."""
    return x + (x.round() - x).detach()
