"""Outputs of softmax and GELU on uneven grids, as planes of int8 values: shifts, halves and digits."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitdfq.quantization.integer.codes import Plane, parts
from vitdfq.quantization.quantizers.adalog import DENOMINATOR, AdaLog
from vitdfq.quantization.quantizers.levels import Levels
from vitdfq.quantization.quantizers.logarithmic import Logarithmic
from vitdfq.quantization.quantizers.shifted_log import ShiftedLog2
from vitdfq.quantization.quantizers.twin import GELU_MINIMUM, TwinGelu, TwinSoftmax

DIGIT = 7  # bits of a plane: what int8 holds beside its sign
Table = tuple[list[int], float]  # an integer for each code, and what one of it is worth


class LogCodes(nn.Module):
    """log2 and log-sqrt2 as shifts: a plane holds the powers of two of seven octaves; odd codes of log-sqrt2 have their own.

    Only octaves that occur get planes: softmax rows of 197 tokens rarely reach beyond twenty of the 32 that 6 bits know.
    """

    def __init__(self, quantizer: Logarithmic) -> None:
        super().__init__()
        self.quantizer, self.num_planes = quantizer, planes_needed(quantizer)
        self.scale, self.code_of_zero = quantizer.scale.item(), 2**quantizer.bits - 1

    def forward(self, x: Tensor) -> list[Plane]:
        signed = torch.empty_like(x, dtype=torch.int8)
        for part, to in parts(x, signed):
            to.copy_(self.quantizer.codes(part))
        codes = signed.view(torch.uint8)  # 0..63: differences of bytes wrap around instead of becoming negative
        last = max(0, (codes + 1).bitwise_and_(self.code_of_zero).amax().item() - 1)  # zero's code is in no plane
        first = min(codes.amin().item(), last)
        if self.quantizer.steps_per_octave == 1:
            return _powers(codes, self.scale, first, last)
        octaves, odd = codes >> 1, (codes & 1) << DIGIT  # an octave further by 2^7 is in no plane
        even_planes = _powers(octaves + odd, self.scale, first // 2, last // 2)
        return even_planes + _powers(octaves + (odd ^ 2**DIGIT), self.scale * 0.5**0.5, first // 2, (last - 1) // 2)


def _powers(octaves: Tensor, scale: float, first: int, last: int) -> list[Plane]:
    """Planes of scale * 2^-octave, octaves first to last; further ones are zero."""
    one = torch.tensor(2 ** (DIGIT - 1), dtype=torch.uint8, device=octaves.device)
    planes = []
    for end in range(last, first - 1, -DIGIT):
        shifts = (octaves + (DIGIT - 1 - end) % 256).clamp_max_(DIGIT)
        planes.append(Plane((one >> shifts).view(torch.int8), 0.0, scale * 2.0**-end))
    return planes


class TableCodes(nn.Module):
    """A `Levels` quantizer as planes looked up in small tables, of activations from which `shift` was subtracted."""

    shift: Tensor | None
    planes: Tensor

    def __init__(self, quantizer: Levels, shift: Tensor | None = None) -> None:
        super().__init__()
        tables = TABLES[type(quantizer)](quantizer)
        numbers = torch.tensor([numbers for numbers, _ in tables], dtype=torch.int8, device=quantizer.levels.device)
        self.quantizer, self.factors = quantizer, [worth for _, worth in tables]
        self.num_planes = len(tables)
        self.register_buffer("shift", shift)
        self.register_buffer("planes", numbers)

    def forward(self, x: Tensor) -> list[Plane]:
        x = x if self.shift is None else x - self.shift
        found = [Plane(torch.empty_like(x, dtype=torch.int8), 0.0, factor) for factor in self.factors]
        for plane, table in zip(found, self.planes, strict=True):
            for part, to in parts(x, plane.values):
                to.copy_(table.index_select(0, self.quantizer.codes(part).flatten()).view(part.shape))
        return found


def planes_needed(quantizer: Logarithmic | Levels) -> int:
    """Return how many planes of int8 hold a quantizer's levels exactly, at most."""
    if isinstance(quantizer, Logarithmic):
        step = quantizer.steps_per_octave
        octaves = [len(range(parity, 2**quantizer.bits - 1, step)) for parity in range(step)]
        return sum(-(-count // DIGIT) for count in octaves)
    return len(TABLES[type(quantizer)](quantizer))


def _digits(numbers: list[int], worth: float) -> list[Table]:
    """Whole numbers, not negative, as digits of seven bits."""
    count = -(-max(numbers).bit_length() // DIGIT)
    shifts = [DIGIT * place for place in range(count)]
    return [([number >> shift & 2**DIGIT - 1 for number in numbers], worth * 2.0**shift) for shift in shifts]


def _twin_softmax(quantizer: TwinSoftmax) -> list[Table]:
    half = 2 ** (quantizer.bits - 1)
    steps, none = list(range(half)), [0] * half
    step = 1 / (half - 1)
    return [(steps + none, step * 2.0 ** -quantizer.shift.item()), (none + steps, step)]


def _twin_gelu(quantizer: TwinGelu) -> list[Table]:
    half = 2 ** (quantizer.bits - 1)
    step, none = -GELU_MINIMUM / half, [0] * half
    return [(list(range(-half, 0)) + none, step), (none + list(range(half)), step * 2.0 ** quantizer.shift.item())]


def _shifted_log(quantizer: ShiftedLog2) -> list[Table]:
    eta = quantizer.eta.item()
    return _digits([round(level / eta) for level in quantizer.levels.tolist()], eta)


def _adalog(quantizer: AdaLog) -> list[Table]:
    """Factors are multiples of 1 / (2^(bits+1) - 2), shifts whole; both follow from the code."""
    levels = quantizer.decode(torch.arange(2**quantizer.bits, device=quantizer.levels.device)).tolist()
    shifts = [int(quantizer.numerator.item()) * code // DENOMINATOR for code in range(len(levels))]
    deepest = max((shift for shift, level in zip(shifts, levels, strict=True) if level), default=0)
    unit = quantizer.scale.item() / (2 ** (quantizer.bits + 1) - 2)
    numbers = [
        round(level * 2.0**shift / unit) << deepest - shift if level else 0 for shift, level in zip(shifts, levels, strict=True)
    ]
    return _digits(numbers, unit * 2.0**-deepest)


TABLES: dict[type[Levels], Callable[..., list[Table]]] = {
    TwinSoftmax: _twin_softmax,
    TwinGelu: _twin_gelu,
    ShiftedLog2: _shifted_log,
    AdaLog: _adalog,
}
