"""Equally spaced levels, (code - zero_point) · scale: the base class of uniform, prefix and dynamic."""

from abc import abstractmethod

import torch
from torch import Tensor

from vitdfq.quantization.functional import dequantize_affine, fake_quantize, quantize_affine
from vitdfq.quantization.quantizers.base import Quantizer


class AffineQuantizer(Quantizer):
    """Rounds each value to its affine grid; a subclass fits the scales and zero points, and says which value has which.

    Args:
        bits: 2 to 8.
        shape: of the settings.
    """

    has_equal_steps = True
    bits: int

    @abstractmethod
    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of each value of `x`, both of a shape that broadcasts to its own."""

    def forward(self, x: Tensor) -> Tensor:
        """Fake quantization, same shape; straight-through gradient."""
        return fake_quantize(x, *self.qparams(x), self.bits)

    def codes(self, x: Tensor) -> Tensor:
        """Integer codes 0..2^bits - 1 of `x`, same shape, as int32."""
        return quantize_affine(x, *self.qparams(x), self.bits).to(torch.int32)

    def decode(self, codes: Tensor) -> Tensor:
        """Real values of integer codes, same shape; equals `forward` on the values that the codes came from."""
        return dequantize_affine(codes, *self.qparams(codes))
