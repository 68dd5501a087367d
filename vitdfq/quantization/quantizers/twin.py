"""Twin uniform grids: two step sizes, one a power of two times the other (PTQ4ViT, arXiv 2111.12293).

The first bit of a code selects the half, the others count its steps; shifting the coarse half makes both halves one integer. In
both classes a value is rounded to the nearest level of the two halves together: choosing the half first, by comparing with the
split, and then rounding is not monotone (with four bits and the split 1/16 the values from 1/16 to 1/14 would become zero).
"""

import torch
from torch import Tensor

from vitdfq.quantization.clip_search import Cost
from vitdfq.quantization.quantizers.forms import Tables, Twin
from vitdfq.quantization.quantizers.levels import Levels

GELU_MINIMUM = -0.16997
TOLERANCE = 1.1  # how far below, as a factor, a rounded output of GELU may lie
LARGEST_SHIFT = 19


class TwinSoftmax(Levels):
    """A fine and a coarse uniform grid for values in [0, 1].

    With n = 2^(bits-1) - 1, codes 0..n are the levels 0..t in steps of t/n, codes n+1..2n+1 the levels 0..1 in steps of 1/n; the
    split is t = 2^-shift and shift, 0 to 19, is fitted. Coarse levels up to t are never chosen; code n+1 is zero's second code.
    """

    settings = ("shift",)
    shift: Tensor

    def candidates(self, values: Tensor) -> Tensor:
        return torch.arange(LARGEST_SHIFT + 1, dtype=torch.float64, device=values.device)[:, None]

    def tables(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        split = torch.exp2(-shift)
        half = 2 ** (self.bits - 1)
        coarse = (torch.arange(half, dtype=shift.dtype, device=shift.device) / (half - 1)).expand(len(shift), -1)
        fine = split * coarse
        below = torch.cat([split, coarse[:, :-1]], 1).maximum(split)  # the used level under each coarse level
        entry = torch.where(coarse > split, (below + coarse) / 2, 1.0)
        entry = entry.flip(1).cummin(1).values.flip(1)  # unused levels have empty cells, which end where they begin
        return torch.cat([fine, coarse], 1), torch.cat([(fine[:, 1:] + fine[:, :-1]) / 2, entry], 1)

    def int8_planes(self) -> Twin:
        return Twin(self.bits, int(self.shift.item()))

    def onnx_form(self) -> Twin:
        return self.int8_planes()


class TwinGelu(Levels):
    """A fine uniform grid for the negative outputs of GELU and a coarse one for the positive.

    With h = 2^(bits-1), codes 0..h-1 are the levels -h..-1 in steps of 0.16997/h, which end at GELU's minimum; codes h..2h-1 are
    the levels 0..h-1 in steps 2^shift as large. shift is fitted, from 0 up to where the largest value is covered. Values below
    GELU's minimum would be clipped to it, so `fit` refuses them.
    """

    suits = frozenset({"gelu", "softmax"})
    settings = ("shift",)
    signed = True
    shift: Tensor

    def fit(self, x: Tensor, *, cost: Cost | None = None) -> None:
        """Choose the shift, see `Levels.fit`.

        Raises:
            ValueError: also values clearly below GELU's minimum: inputs behind a gate, a rotation or a shift.
        """
        if x.numel() and x.min() < TOLERANCE * GELU_MINIMUM:
            reason = f"values down to {x.min().item():.3g} are no output of GELU, which ends at -0.17"
            raise ValueError(f"twin_gelu: {reason}; prepare without rotate_mlp, or change gelu.quantizer; choices: uniform")
        super().fit(x, cost=cost)

    def candidates(self, values: Tensor) -> Tensor:
        half = 2 ** (self.bits - 1)
        reach = -GELU_MINIMUM / half * (half - 1)
        covering = (values[-1].double() / reach).clamp(min=1.0).log2().ceil().long().item()
        return torch.arange(covering + 1, dtype=torch.float64, device=values.device)[:, None]

    def tables(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        half = 2 ** (self.bits - 1)
        numbers = torch.arange(-half, half, dtype=shift.dtype, device=shift.device)
        levels = -GELU_MINIMUM / half * numbers * torch.where(numbers < 0, 1.0, torch.exp2(shift))
        return levels, (levels[:, 1:] + levels[:, :-1]) / 2

    def int8_planes(self) -> Tables:
        half = 2 ** (self.bits - 1)
        step, zeros = -GELU_MINIMUM / half, [0] * half
        return Tables([(list(range(-half, 0)) + zeros, step), (zeros + list(range(half)), step * 2.0 ** self.shift.item())])
