"""What stands in the exported graph for a quantizer of activations."""

import math

import torch
from torch import Tensor, nn

from vitdfq.onnx.operators import dequantize, quantize
from vitdfq.onnx.table import Table
from vitdfq.quantization.quantizers.dynamic import TokenUniform
from vitdfq.quantization.quantizers.logarithmic import Logarithmic
from vitdfq.quantization.quantizers.uniform import Uniform


def exportable(quantizer: nn.Module, *, signed: bool = False) -> nn.Module:
    """Return a module of standard operators that rounds as `quantizer` does.

    Args:
        quantizer: fitted, of activations.
        signed: keep uniform codes in int8, which integer products want on their right; else in uint8.

    Raises:
        ExportError: a quantizer that is neither uniform nor a table of levels.
    """
    if isinstance(quantizer, nn.Identity | TokenUniform):  # a token's own range: ordinary arithmetic, as torch writes it
        return quantizer
    if isinstance(quantizer, Uniform):
        return QuantizeDequantize(quantizer, signed)
    if isinstance(quantizer, Logarithmic):
        return Logarithm(quantizer)
    return Table(quantizer)


class QuantizeDequantize(nn.Module):
    """A uniform grid, per tensor or per head, in an 8-bit type; fewer bits are clipped in front, in real values."""

    lowest: Tensor
    highest: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: Uniform, signed: bool) -> None:
        super().__init__()
        self.fills_type = quantizer.bits == 8
        scale, zero_point = quantizer.scale.detach(), quantizer.zero_point.detach()
        self.axis = None if scale.ndim == 0 else -scale.ndim  # (heads, 1, 1) on (..., heads, N, d)
        self.register_buffer("lowest", -zero_point * scale)
        self.register_buffer("highest", (2**quantizer.bits - 1 - zero_point) * scale)
        self.register_buffer("scale", scale.squeeze())
        middle = 2 ** (quantizer.bits - 1) if signed else 0
        self.register_buffer("zero_point", (zero_point.squeeze() - middle).to(torch.int8 if signed else torch.uint8))
        if self.axis is not None:
            self.scale, self.zero_point = self.scale.view(-1), self.zero_point.view(-1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.fills_type:
            x = x.clamp(self.lowest, self.highest)
        axis = None if self.axis is None else x.ndim + self.axis
        codes = quantize(x, self.scale, self.zero_point, axis)
        return dequantize(codes, self.scale, self.zero_point, axis)


class Logarithm(nn.Module):
    """A logarithmic grid by its formula: with the natural logarithm, which ONNX has, an eighth of a table's time."""

    def __init__(self, quantizer: Logarithmic) -> None:
        super().__init__()
        self.scale = quantizer.scale.item()
        self.step = math.log(2) / quantizer.steps_per_octave
        self.last = float(2**quantizer.bits - 1)

    def forward(self, x: Tensor) -> Tensor:
        ratio = x if self.scale == 1 else x / self.scale
        codes = (ratio.log() * (-1 / self.step)).round().clamp(0.0, self.last)
        levels = (codes * -self.step).exp()
        levels = levels if self.scale == 1 else levels * self.scale
        return torch.where(codes == self.last, 0.0, levels)
