"""Affine quantization arithmetic. Codes are integers 0..2^bits - 1; real zero is always a code."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def widened(x: Tensor) -> Tensor:
    """`x` in at least float32: dividing by a 0-dimensional float32 scale would stay in 16 bits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def choose_qparams(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Return (scale, zero_point) that cover [low, high]; both have the shape of `low`.

    The range is widened to include zero. Symmetric grids put zero on the middle code 2^(bits-1). A range of zero width gets
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
    return ((widened(x) / scale).round() + zero_point).clamp(0, 2**bits - 1)


def dequantize_affine(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Return the real values of integer codes."""
    return (codes - zero_point) * scale


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """Round `x` to the grid, keeping its dtype; the gradient passes straight through where `x` is not clipped.

    With k = x/scale, l = -zero_point and u = 2^bits - 1 - zero_point, the gradients are those of LSQ (arXiv 1902.08153):

        d/dx      1 where l <= round(k) <= u, else 0
        d/dscale  round(k) - k where l <= round(k) <= u; l below, u above; summed to the shape of `scale`

    `zero_point` is an integer and has no gradient. LSQ's factor 1/sqrt(n 2^bits) on the gradient of the scale is left to the
    training. 16-bit inputs, as under autocast, are divided and rounded in float32 (in bfloat16 x/scale would often round to
    another code); only the result is cast back.
    """
    if torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad):
        return _FakeQuantize.apply(x, scale, zero_point, bits)
    low, high = -zero_point, 2**bits - 1 - zero_point
    return (widened(x) / scale).round_().clamp_(low, high).mul_(scale).to(x.dtype)


class _FakeQuantize(torch.autograd.Function):
    """Saves one byte per value for the backward pass, five if the scale has a gradient too; autograd through round, clamp and
    two products would save several float tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
        steps = widened(x) / scale
        rounded = steps.round()
        clipped = rounded.clamp(-zero_point, 2**bits - 1 - zero_point)
        inside = clipped == rounded
        slope = torch.where(inside, clipped - steps, clipped) if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(inside, slope)
        ctx.scale_shape = scale.shape
        return clipped.mul_(scale).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        inside, slope = ctx.saved_tensors
        grad_x = torch.where(inside, grad, 0.0) if ctx.needs_input_grad[0] else None
        grad_scale = None if slope is None else (slope * grad).sum_to_size(ctx.scale_shape)
        return grad_x, grad_scale, None, None
