"""The exported form of a quantizer of activations."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.onnx.layout import byte_for, stored_bits
from vitdfq.onnx.operators import clip, dequantize, quantize
from vitdfq.onnx.table import Table
from vitdfq.quantization.quantizers.base import Quantizer
from vitdfq.quantization.quantizers.forms import Affine, Octaves, TokenAffine, Traced, Twin


def exportable(quantizer: Quantizer, *, signed: bool = False, factors: bool = True) -> nn.Module:
    """Return a module of standard operators that rounds as `quantizer` does.

    Args:
        quantizer: fitted, of activations.
        signed: keep the codes of an affine grid in int8, else in uint8, see `Layout`.
        factors: scales of tokens and heads may become factors of a product of integers; False: they stay in float.

    Raises:
        ExportError: a quantizer with another form than an affine or logarithmic grid that is no table of levels either.
    """
    match quantizer.onnx_form():
        case Affine(granularity="tensor") as grid:
            return QuantizeDequantize(grid, signed)
        case Affine() | TokenAffine() as grid:
            return Scaled(quantizer, grid, signed) if factors and stored_bits(quantizer) <= 8 else quantizer
        case Octaves() as grid:
            return Logarithm(grid)
        case Twin() as grid:
            return TwinSteps(grid)
        case Traced():
            return quantizer
        case _:
            return Table(quantizer)


class QuantizeDequantize(nn.Module):
    """An affine grid, per tensor, in an 8-bit type; for fewer bits the real values are clipped first."""

    lowest: Tensor
    highest: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, grid: Affine, signed: bool) -> None:
        super().__init__()
        self.fills_type = grid.bits == 8
        scale, zero_point = grid.scale.detach(), grid.zero_point.detach()
        self.register_buffer("lowest", -zero_point * scale)
        self.register_buffer("highest", (2**grid.bits - 1 - zero_point) * scale)
        self.register_buffer("scale", scale.clone())
        middle, dtype = byte_for(grid.bits, signed=signed)
        self.register_buffer("zero_point", (zero_point - middle).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.fills_type else clip(x, self.lowest, self.highest)
        return dequantize(quantize(x, self.scale, self.zero_point), self.scale, self.zero_point)


class Scaled(nn.Module):
    """An affine grid per token or per head, whose scales are factors of a product's rows or heads, see `factored`.

    QuantizeLinear has no such scales (onnxruntime fuses one per head into a product, and then cannot run it). So values are
    divided by their scale first, and stored in bytes with the scale 1 and one zero point for all.
    """

    one: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: Any, grid: Affine | TokenAffine, signed: bool) -> None:
        super().__init__()
        self.quantizer, self.top = quantizer, 2**grid.bits - 1
        largest_zero_point = 2 ** (grid.bits - 1) if grid.symmetric else self.top
        self.register_buffer("one", torch.ones(()))
        zero_point = torch.tensor(0, dtype=torch.int8) if signed else torch.tensor(largest_zero_point, dtype=torch.uint8)
        self.register_buffer("zero_point", zero_point)

    def forward(self, x: Tensor) -> Tensor:
        steps, scale = self.steps(x)
        return steps * scale

    def steps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rounded values in units of their scale, same shape, and the scale: (..., N, 1) of tokens, (H, 1, 1) of heads."""
        scale, zero_point = self.quantizer.qparams(x)
        steps = torch.minimum(torch.maximum(x / scale, -zero_point), self.top - zero_point)
        return dequantize(quantize(steps, self.one, self.zero_point), self.one, self.zero_point), scale


def factored(operand: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Round `x` by an `exportable` operand of a product: values for the product, and a factor for its result (None: 1)."""
    return operand.steps(x) if isinstance(operand, Scaled) else (operand(x), None)


def scaled(x: Tensor, factor: Tensor | None) -> Tensor:
    """`x` times a factor of `factored`."""
    return x if factor is None else x * factor


class Logarithm(nn.Module):
    """A logarithmic grid by its formula: with the natural logarithm, which ONNX has, in an eighth of a table's time."""

    def __init__(self, grid: Octaves) -> None:
        super().__init__()
        self.scale = grid.scale
        self.step = math.log(2) / grid.steps_per_octave
        self.last = float(2**grid.bits - 1)

    def forward(self, x: Tensor) -> Tensor:
        ratio = x if self.scale == 1 else x / self.scale
        codes = (ratio.log() * (-1 / self.step)).round().clamp(0.0, self.last)
        levels = (codes * -self.step).exp()
        levels = levels if self.scale == 1 else levels * self.scale
        return torch.where(codes == self.last, 0.0, levels)


class TwinSteps(nn.Module):
    """A twin grid by its two roundings, which take less time than a table's gathers."""

    def __init__(self, grid: Twin) -> None:
        super().__init__()
        self.grid, self.coarse_step, self.largest = grid, float(grid.coarse_step), float(grid.largest)

    def forward(self, x: Tensor) -> Tensor:
        x = (x * self.largest).clamp(0.0, self.largest)
        fine = (x - 0.5).ceil().clamp(max=float(self.grid.steps))  # halfway, the lower one
        coarse = (x * (1 / self.coarse_step) - 0.5).ceil() * self.coarse_step
        return torch.where(x <= self.grid.boundary, fine, coarse) * (1 / self.largest)
