"""The exported form of a quantizer of activations."""

import math

import torch
from torch import Tensor, nn

from vitdfq.onnx.operators import clip, dequantize, quantize
from vitdfq.onnx.table import Table
from vitdfq.quantization.quantizers.base import Quantizer
from vitdfq.quantization.quantizers.forms import Affine, Octaves, Traced


def exportable(quantizer: Quantizer, *, signed: bool = False) -> nn.Module:
    """Return a module of standard operators that rounds as `quantizer` does.

    Args:
        quantizer: fitted, of activations.
        signed: keep the codes of an affine grid in int8, else in uint8, see `fits_int8`.

    Raises:
        ExportError: a quantizer with another form than an affine or logarithmic grid that is no table of levels either.
    """
    match quantizer.onnx_form():
        case Affine() as grid:
            return QuantizeDequantize(grid, signed)
        case Octaves() as grid:
            return Logarithm(grid)
        case Traced():
            return quantizer
        case _:
            return Table(quantizer)


def fits_int8(left: Quantizer, right: Quantizer) -> bool:
    """Whether codes of `right` may be int8 on the right of a product with uint8 codes of `left`.

    Runtimes multiply uint8 with int8 fastest. On x86 without VNNI they add two such products in 16 bits, which saturate: twice
    255 by 128 is too much, one bit less on either side is not. uint8 on both sides is exact on every processor.
    """
    return (left.bits or 0) + (right.bits or 0) < 16


def byte_for(bits: int, *, signed: bool) -> tuple[int, torch.dtype]:
    """Return what is subtracted from codes 0..2^bits - 1 before they are stored, and the type that stores them."""
    return (2 ** (bits - 1), torch.int8) if signed else (0, torch.uint8)


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
