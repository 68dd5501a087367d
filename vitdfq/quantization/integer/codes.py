"""Activations of a uniform grid as int8 values. The arithmetic is the quantizer's own: the codes are the same, bit for bit."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitdfq.quantization.functional import widened
from vitdfq.quantization.quantizers.dynamic import TokenUniform
from vitdfq.quantization.quantizers.uniform import Uniform

MIDDLE = 128  # takes codes 0..255 into int8
# A part and what is computed from it stay in the cache; a large temporary costs more than the arithmetic on it.
ELEMENTS_AT_ONCE = {"cpu": 2**18, "cuda": 2**28}


class Plane(NamedTuple):
    """Integers that stand for factor * (values - zero); zero and factor are numbers or broadcast with the values."""

    values: Tensor  # int8
    zero: float | Tensor  # whole numbers
    factor: float | Tensor


class UniformCodes(nn.Module):
    """Codes of a fitted `Uniform` quantizer, per tensor or per head, of activations from which `shift` was subtracted.

    Values are code - zero_point where that fits into int8, as it does below 8 bits: then no zero is left to correct for. Else
    they are code - 128.
    """

    num_planes = 1
    shift: Tensor | None
    scale: Tensor
    low: Tensor
    high: Tensor
    zero: Tensor

    def __init__(self, quantizer: Uniform, shift: Tensor | None = None) -> None:
        super().__init__()
        low, high = -quantizer.zero_point, 2**quantizer.bits - 1 - quantizer.zero_point
        fits = bool((low >= -MIDDLE).all() and (high < MIDDLE).all())
        self.register_buffer("shift", shift)
        self.register_buffer("scale", quantizer.scale.clone())
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.register_buffer("zero", torch.zeros_like(low) if fits else -low - MIDDLE)
        self.per_tensor = low.ndim == 0
        if self.per_tensor:  # numbers: reading them from a device at each pass would wait for it
            self.numbers = low.item(), high.item(), self.zero.item(), self.scale.item()

    def forward(self, x: Tensor) -> list[Plane]:
        low, high, zero, factor = self.numbers if self.per_tensor else (self.low, self.high, self.zero, self.scale)
        values = torch.empty_like(x, dtype=torch.int8)
        for part, to in parts(x, values):
            steps = part / self.scale if self.shift is None else (part - self.shift).div_(self.scale)
            steps = steps.round_().clamp_(low, high)
            to.copy_(steps if isinstance(zero, float) and zero == 0 else steps.add_(zero))
        return [Plane(values, zero, factor)]


class TokenCodes(nn.Module):
    """Codes of a `TokenUniform` quantizer, of tokens (T, C) less `shift` (C,); zero and factor of the plane are (T, 1)."""

    num_planes = 1
    shift: Tensor | None

    def __init__(self, quantizer: TokenUniform, shift: Tensor | None = None) -> None:
        super().__init__()
        self.quantizer, self.top, self.fits = quantizer, 2**quantizer.bits - 1, quantizer.bits < 8 or quantizer.symmetric
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> list[Plane]:
        x = x if self.shift is None else x - self.shift
        scale, zero_point = self.quantizer.qparams(x)
        zero = zero_point - (zero_point if self.fits else MIDDLE)
        values = torch.empty_like(x, dtype=torch.int8)
        steps = (widened(x) / scale).round_().clamp_(-zero_point, self.top - zero_point)
        values.copy_(steps if self.fits else steps.add_(zero))
        return [Plane(values, 0.0 if self.fits else zero, scale)]


def parts(x: Tensor, result: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut both along their first dimension into parts of the size that a device likes, in at least float32."""
    rows = max(1, ELEMENTS_AT_ONCE.get(x.device.type, 2**28) * len(x) // max(1, x.numel()))
    for part, to in zip(x.split(rows), result.split(rows), strict=True):
        yield widened(part), to
