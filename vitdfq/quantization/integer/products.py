"""Attention's products of two int8 operands: many small matrices at once."""

import math

import torch
from torch import Tensor

from vitdfq.quantization.integer.backends import float_product, int8_product, int8_works
from vitdfq.quantization.integer.codes import MIDDLE, Plane

# No kernel multiplies batches of int8, and those of bfloat16, exact inside, round their results. One call per matrix costs five
# microseconds: on a CPU 197 x 64 x 197 takes a seventh of the time that float32 takes, 49 x 32 x 49 (Swin's windows) the same. An
# accelerator would wait for each call.
WORTH_A_CALL = {"cpu": 2**19}


def batched_product(left: Plane, right: Plane) -> Tensor:
    """Σ (l - zero)(r - zero) of (..., N, K) and (..., K, M): whole numbers, as int32 or a float type that holds them exactly."""
    numbers = _product(left.values, right.values)
    left_zero, right_zero = (_whole(plane.zero, numbers.dtype) for plane in (left, right))
    if left_zero is not None:
        numbers.sub_(left_zero * value_sums(right, -2).to(numbers.dtype))
    if right_zero is not None:
        numbers.sub_(right_zero * left.values.sum(-1, keepdim=True, dtype=numbers.dtype))
    return numbers


def value_sums(plane: Plane, dim: int) -> Tensor:
    """Sums of (values - zero) along a dimension, which is kept: int32."""
    sums = plane.values.sum(dim, keepdim=True, dtype=torch.int32)
    zero = _whole(plane.zero, torch.int32)
    return sums if zero is None else sums.sub_(plane.values.shape[dim] * zero)


def _whole(zero: float | Tensor, dtype: torch.dtype) -> int | Tensor | None:
    """A plane's zero as a whole number; None if there is nothing to correct for."""
    if isinstance(zero, Tensor):
        return zero.to(dtype)
    return int(zero) or None


def _product(left: Tensor, right: Tensor) -> Tensor:
    rows, inner, columns = *left.shape[-2:], right.shape[-1]
    device = left.device.type
    worth = rows * inner * columns >= WORTH_A_CALL.get(device, math.inf)
    if not worth or left.shape[:-2] != right.shape[:-2] or not int8_works(device):
        return float_product(left, right, largest=4 * MIDDLE**2 * inner)
    out = torch.empty(*left.shape[:-1], columns, dtype=torch.int32, device=left.device)
    _one_by_one(left, right, out)
    return out


def _one_by_one(left: Tensor, right: Tensor, out: Tensor) -> None:
    if out.ndim == 2:
        int8_product(left, right, out)
        return
    for matrices in zip(left, right, out, strict=True):
        _one_by_one(*matrices)
