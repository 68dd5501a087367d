"""Uniform grid: equally spaced levels, asymmetric or symmetric about zero."""

import math

import torch
from torch import Tensor, nn

from vitdfq.quantization.clip_search import search_rows, search_tensor
from vitdfq.quantization.functional import dequantize_affine, fake_quantize, quantize_affine


class Uniform(nn.Module):
    """A uniform quantizer whose range minimises the squared error of what it was fitted on.

    Args:
        bits: 2 to 8.
        shape: of the scale; `()` is per tensor, `(C, 1)` per channel of a (C, ...) weight flattened to two dimensions.
        symmetric: put zero on the middle code.

    Buffers `scale` and `zero_point` are NaN until `fit`, so that an uncalibrated model cannot pass for a calibrated one.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, bits: int, *, shape: tuple[int, ...] = (), symmetric: bool = False) -> None:
        super().__init__()
        self.bits, self.symmetric = bits, symmetric
        self.register_buffer("scale", torch.full(shape, math.nan))
        self.register_buffer("zero_point", torch.full(shape, math.nan))

    def fit(self, x: Tensor) -> None:
        """Choose scale and zero point for `x`: any shape per tensor, (C, M) per channel.

        Raises:
            ValueError: `x` holds NaN or infinity.
        """
        if not x.isfinite().all():
            raise ValueError("cannot fit a quantizer on values that are NaN or infinite")
        search = search_tensor if self.scale.ndim == 0 else search_rows
        scale, zero_point = search(x.detach().float(), self.bits, self.symmetric)
        self.scale.copy_(scale.view_as(self.scale))
        self.zero_point.copy_(zero_point.view_as(self.zero_point))

    def forward(self, x: Tensor) -> Tensor:
        """Fake quantization: `x` rounded to the grid, same shape; straight-through gradient."""
        return fake_quantize(x, self.scale, self.zero_point, self.bits)

    def codes(self, x: Tensor) -> Tensor:
        """Integer codes 0..2^bits - 1, as int32."""
        return quantize_affine(x, self.scale, self.zero_point, self.bits).to(torch.int32)

    def decode(self, codes: Tensor) -> Tensor:
        """Real values of integer codes; equals `forward` on the values the codes came from."""
        return dequantize_affine(codes, self.scale, self.zero_point)

    def extra_repr(self) -> str:
        grid = "symmetric" if self.symmetric else "asymmetric"
        return f"bits={self.bits}, {grid}, {'per_channel' if self.scale.ndim else 'per_tensor'}"
