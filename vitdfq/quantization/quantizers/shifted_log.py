"""Shifted log2: a logarithmic grid whose steps become equal near zero (I&S-ViT, arXiv 2311.10126)."""

import torch
from torch import Tensor

from vitdfq.quantization.quantizers.forms import Tables, digits
from vitdfq.quantization.quantizers.levels import Levels

SMALLEST_SHIFT = 15  # eta goes down to 2^-15, the reach of log2 with four bits


class ShiftedLog2(Levels):
    """A quantizer of values in [0, 1] with levels 2^e - eta for integers e.

    As published, y = log2(x + eta) is quantized uniformly to 2^bits values over the range of the data, each is rounded to an
    integer exponent e, and eta is the best of eleven decimal fractions from 0.001 to 1. This class deviates in three points:

    - eta is a power of two, 1 to 2^-15. Only then is 2^e - eta zero for some e: with a decimal eta, zero is rounded to another
      value, which adds up over the many zeros of a row. The published fractions lie within half an octave of powers of two, so
      the loss is small; the smallest level becomes that of log2, and subtracting eta is exact.
    - The range of y always begins at log2(eta), so that zero has a code.
    - A value is rounded once, to the nearest level in log2(x + eta), not twice, so that a level is rounded to itself.

    There are at most 16 distinct levels for values up to 1, so more than four bits add nothing.
    """

    settings = ("eta", "top")
    eta: Tensor
    top: Tensor

    def candidates(self, values: Tensor) -> Tensor:
        etas = torch.exp2(-torch.arange(SMALLEST_SHIFT + 1, dtype=torch.float64, device=values.device))
        return torch.stack([etas, torch.log2(values[-1] + etas).round()], 1)

    def tables(self, eta: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
        parts = torch.arange(2**self.bits, dtype=eta.dtype, device=eta.device) / (2**self.bits - 1)
        lowest = torch.log2(eta)
        exponents = (lowest + (top - lowest) * parts).round()
        middles = (exponents[:, 1:] + exponents[:, :-1]) / 2
        return torch.exp2(exponents) - eta, torch.exp2(middles) - eta

    def int8_planes(self) -> Tables:
        eta = self.eta.item()
        return digits([round(level / eta) for level in self.levels.tolist()], eta)
