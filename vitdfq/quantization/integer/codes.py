"""Activations of a uniform grid as int8 values: the same arithmetic as the quantizer's, so the same codes bit for bit."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitdfq.quantization.functional import widened
from vitdfq.quantization.quantizers.forms import Affine, TokenAffine

MIDDLE = 128  # maps codes 0..255 to int8
# A part and its results stay in the cache; writing and reading a large temporary takes longer than the arithmetic on it.
ELEMENTS_AT_ONCE = {"cpu": 2**18, "cuda": 2**28}


class Plane(NamedTuple):
    """Integers that represent factor * (values - zero); zero and factor are numbers or broadcast with the values."""

    values: Tensor  # int8
    zero: float | Tensor  # whole numbers
    factor: float | Tensor


class Range(NamedTuple):
    """Uniform grids, an entry each in tensors (n,): real values are numbers · scale for whole numbers low to high."""

    scale: Tensor
    low: Tensor
    high: Tensor

    @property
    def fits_int8(self) -> bool:
        return bool((self.low >= -MIDDLE).all() and (self.high < MIDDLE).all())


class Codes(nn.Module, ABC):
    """Turns activations, from which `shift` is subtracted, into planes whose sum they are once rounded."""

    num_planes: int  # at most
    shift: Tensor | None

    def __init__(self, num_planes: int, shift: Tensor | None) -> None:
        super().__init__()
        self.num_planes = num_planes
        self.register_buffer("shift", shift)

    @abstractmethod
    def forward(self, x: Tensor) -> list[Plane]: ...

    def shifted(self, x: Tensor) -> Tensor:
        return x if self.shift is None else x - self.shift


class AffineCodes(Codes):
    """Codes of a fitted uniform grid, per tensor or per head.

    Values are code - zero_point where that fits into int8, as it does below 8 bits: then there is no zero to correct for. Else
    they are code - 128.
    """

    scale: Tensor
    low: Tensor
    high: Tensor
    zero: Tensor

    def __init__(self, grid: Affine, shift: Tensor | None = None) -> None:
        super().__init__(grid.num_planes, shift)
        low, high = -grid.zero_point, 2**grid.bits - 1 - grid.zero_point
        fits = bool((low >= -MIDDLE).all() and (high < MIDDLE).all())
        self.register_buffer("scale", grid.scale.clone())
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.register_buffer("zero", torch.zeros_like(low) if fits else -low - MIDDLE)
        self.per_tensor = low.ndim == 0
        if self.per_tensor:  # numbers: each pass would wait for the device to send them
            self.numbers = low.item(), high.item(), self.zero.item(), self.scale.item()

    def forward(self, x: Tensor) -> list[Plane]:
        low: Any
        high: Any
        low, high, zero, factor = self.numbers if self.per_tensor else (self.low, self.high, self.zero, self.scale)
        values = torch.empty_like(x, dtype=torch.int8)
        for part, to in parts(x, values):
            steps = part / self.scale if self.shift is None else (part - self.shift).div_(self.scale)
            steps = steps.round_().clamp_(low, high)
            to.copy_(steps if isinstance(zero, float) and zero == 0 else steps.add_(zero))
        return [Plane(values, zero, factor)]

    def range(self, count: int = 1) -> Range:
        """The grid; `count` entries, one for each head."""
        return Range(*(value.flatten().expand(count) for value in (self.scale, self.low, self.high)))


class TokenCodes(Codes):
    """Codes of tokens (..., N, C), each on a uniform grid of its own; zero and factor of the plane are (..., N, 1) or (N, 1)."""

    def __init__(self, quantizer: Any, grid: TokenAffine, shift: Tensor | None = None) -> None:
        super().__init__(grid.num_planes, shift)
        self.quantizer, self.top, self.fits = quantizer, 2**grid.bits - 1, grid.bits < 8 or grid.symmetric

    def forward(self, x: Tensor) -> list[Plane]:
        x = self.shifted(x)
        scale, zero_point = self.quantizer.qparams(x)
        zero = zero_point - (zero_point if self.fits else MIDDLE)
        values = torch.empty_like(x, dtype=torch.int8)
        steps = (widened(x) / scale).round_().clamp_(-zero_point, self.top - zero_point)
        values.copy_(steps if self.fits else steps.add_(zero))
        return [Plane(values, 0.0 if self.fits else zero, scale)]

    def range(self) -> Range | None:
        """The grids of a calibrated quantizer, of each prefix token and of all other tokens; None if they follow the values."""
        grid = self.quantizer.affine
        if grid is None:
            return None
        scale, zero_point = grid.scale.flatten(), grid.zero_point.flatten()
        return Range(scale, -zero_point, self.top - zero_point)


def parts(x: Tensor, result: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut both along their first dimension into parts that fit the device's cache; those of `x` in at least float32."""
    rows = max(1, ELEMENTS_AT_ONCE.get(x.device.type, 2**28) * len(x) // max(1, x.numel()))
    for part, to in zip(x.split(rows), result.split(rows), strict=True):
        yield widened(part), to
