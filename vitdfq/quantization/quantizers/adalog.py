"""AdaLog: a logarithmic grid whose base is fitted (arXiv 2407.12951).

Levels are scale · 2^(-k·q/37) for an integer q: 37 is log2, 18.5 would be log-sqrt2, 74 reaches 2^-12 with three bits. The whole
part of k·q/37 is a shift; the rest is one of 37 factors, rounded to a fraction that an integer multiplication can apply.
"""

import torch
from torch import Tensor

from vitdfq.quantization.quantizers.base import require_positive
from vitdfq.quantization.quantizers.forms import Tables, digits
from vitdfq.quantization.quantizers.levels import Levels
from vitdfq.quantization.quantizers.logarithmic import PERCENTILES

DENOMINATOR = 37
NUMERATORS = range(10, 75)  # steps of a fifth of an octave to two octaves
SMALLEST = torch.finfo(torch.float32).tiny  # levels below are zero: some devices flush subnormal numbers


class AdaLog(Levels):
    """A logarithmic quantizer of values in [0, 1] with a fitted base. The last code, 2^bits - 1, stands for zero.

    Code k < 2^bits - 1 decodes to scale · 2^-T1 · T2 with T1 = ⌊k·q/37⌋ and T2 = 2^(-((k·q) mod 37)/37), rounded to a multiple of
    1/(2^(bits+1) - 2). The paper encodes by the unrounded formula, so that a level may be encoded as its neighbor; here a value
    gets the nearest rounded level, in the logarithm.

    Args:
        bits: 2 to 8.
        shape: of the settings; only `()`, per tensor.
        search_scale: also choose the scale, among four percentiles of the values; else it is 1, a softmax output's largest value.
    """

    settings = ("numerator", "scale")
    descending = True
    numerator: Tensor
    scale: Tensor

    def __init__(self, bits: int, *, shape: tuple[int, ...] = (), search_scale: bool = False) -> None:
        super().__init__(bits, shape=shape)
        self.search_scale = search_scale

    def candidates(self, values: Tensor) -> Tensor:
        numerators = torch.arange(NUMERATORS.start, NUMERATORS.stop, dtype=torch.float64, device=values.device)
        scales = numerators.new_ones(1)
        if self.search_scale and values[-1] > SMALLEST:
            places = ((values.numel() - 1) * numerators.new_tensor(PERCENTILES)).round().long()
            scales = values[places].double().clamp(min=SMALLEST)
        return torch.cartesian_prod(numerators, scales)

    def tables(self, numerator: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        largest = 2 ** (self.bits + 1) - 2
        steps = numerator.long() * torch.arange(2**self.bits, device=numerator.device)
        factors = (torch.exp2(-(steps % DENOMINATOR) / DENOMINATOR) * largest).round() / largest
        levels = scale * torch.exp2(-(steps // DENOMINATOR).double()) * factors
        levels = torch.where(levels < SMALLEST, 0.0, levels)
        boundaries = levels[:, :-1].sqrt() * levels[:, 1:].sqrt()
        levels[:, -1] = 0.0
        # Zero has no logarithm: its cell ends half a step below the last level, by the unrounded formula, so strictly below it.
        boundaries[:, -1:] = levels[:, -2:-1] * torch.exp2(-numerator / (2 * DENOMINATOR))
        return levels.flip(1), boundaries.flip(1)

    def int8_planes(self) -> Tables:
        """Factors are multiples of 1/(2^(bits+1) - 2) and shifts are whole numbers, so every level is a multiple of one unit."""
        levels = self.decode(torch.arange(2**self.bits, device=self.levels.device)).tolist()
        shifts = [int(self.numerator.item()) * code // DENOMINATOR for code in range(len(levels))]
        deepest = max((shift for shift, level in zip(shifts, levels, strict=True) if level), default=0)
        unit = self.scale.item() / (2 ** (self.bits + 1) - 2)
        numbers = [
            round(level * 2.0**shift / unit) << deepest - shift if level else 0
            for shift, level in zip(shifts, levels, strict=True)
        ]
        return digits(numbers, unit * 2.0**-deepest)

    def check(self) -> None:
        super().check()
        require_positive(self.scale)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, search_scale={self.search_scale}"
