"""What stands in the exported graph for a quantizer of activations."""

import math

import torch
from torch import Tensor, nn

from vitdfq.onnx.operators import clip, dequantize, quantize
from vitdfq.onnx.table import Table
from vitdfq.quantization.quantizers.dynamic import TokenUniform
from vitdfq.quantization.quantizers.logarithmic import Logarithmic
from vitdfq.quantization.quantizers.uniform import Uniform


def exportable(quantizer: nn.Module, *, signed: bool = False) -> nn.Module:
    """Return a module of standard operators that rounds as `quantizer` does; a scale a token or a head is its own arithmetic.

    Args:
        quantizer: fitted, of activations.
        signed: keep uniform codes in int8, else in uint8, see `fits_int8`.

    Raises:
        ExportError: a quantizer that is neither uniform nor a table of levels.
    """
    if isinstance(quantizer, nn.Identity | TokenUniform):
        return quantizer
    if isinstance(quantizer, Uniform):
        per_tensor = quantizer.granularity == "tensor"  # onnxruntime fuses what has a scale a head, and then cannot run it
        return QuantizeDequantize(quantizer, signed) if per_tensor else quantizer
    if isinstance(quantizer, Logarithmic):
        return Logarithm(quantizer)
    return Table(quantizer)


def fits_int8(left: nn.Module, right: nn.Module) -> bool:
    """Whether codes of `right` may stand in int8 on the right of a product with uint8 codes of `left`.

    Runtimes multiply uint8 with int8 fastest. On x86 without VNNI they add two such products in 16 bits, which saturate: twice
    255 by 128 is too much, a bit less on either side is not. uint8 on both sides is exact on every processor.
    """
    return getattr(left, "bits", 0) + getattr(right, "bits", 0) < 16


def byte_for(bits: int, *, signed: bool) -> tuple[int, torch.dtype]:
    """Return what is taken from codes 0..2^bits - 1 before they are stored, and the type that holds them then."""
    return (2 ** (bits - 1), torch.int8) if signed else (0, torch.uint8)


class QuantizeDequantize(nn.Module):
    """A uniform grid, per tensor, in an 8-bit type; fewer bits are clipped in front, in real values."""

    lowest: Tensor
    highest: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: Uniform, signed: bool) -> None:
        super().__init__()
        self.fills_type = quantizer.bits == 8
        scale, zero_point = quantizer.scale.detach(), quantizer.zero_point.detach()
        self.register_buffer("lowest", -zero_point * scale)
        self.register_buffer("highest", (2**quantizer.bits - 1 - zero_point) * scale)
        self.register_buffer("scale", scale.clone())
        middle, dtype = byte_for(quantizer.bits, signed=signed)
        self.register_buffer("zero_point", (zero_point - middle).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.fills_type else clip(x, self.lowest, self.highest)
        return dequantize(quantize(x, self.scale, self.zero_point), self.scale, self.zero_point)


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
