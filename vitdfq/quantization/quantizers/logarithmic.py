"""Logarithmic grids for softmax outputs: levels scale * 2^(-k / steps_per_octave), and zero.

log2 has one step per octave (arXiv 2111.13824), log-sqrt2 two (arXiv 2212.08254). Levels are dense near zero, where the long
tail of an attention row lies, and every multiplication by a level is a shift (times sqrt(2) for odd codes of log-sqrt2).
"""

import math

import torch
from torch import Tensor

from vitdfq.quantization.clip_search import Cost
from vitdfq.quantization.functional import widened
from vitdfq.quantization.quantizers.base import Quantizer, require_finite, require_positive
from vitdfq.quantization.quantizers.forms import Octaves
from vitdfq.quantization.quantizers.levels import least
from vitdfq.quantization.sample import sampled_values

PERCENTILES = (0.999, 0.9999, 0.99999, 1.0)  # candidates of the scale
# Float type -> the integer type of its size, the bits of its fraction, the bias of its exponent.
FLOAT_BITS = {torch.float32: (torch.int32, 23, 127), torch.float64: (torch.int64, 52, 1023)}


class Logarithmic(Quantizer):
    """A logarithmic quantizer of values in [0, 1].

    With one step per octave 4 bits reach 2^-14, so the scale is 1 and no data is needed. With two steps they reach only 2^-7: the
    scale is then fitted, the best of four percentiles. The last code, 2^bits - 1, means zero.

    Args:
        bits: 2 to 8.
        shape: of the scale; only `()`, per tensor.
        steps_per_octave: 1 (log2) or 2 (log-sqrt2).
    """

    suits = frozenset({"softmax"})
    bits: int
    scale: Tensor

    def __init__(self, bits: int, *, shape: tuple[int, ...] = (), steps_per_octave: int = 1) -> None:
        super().__init__(bits, shape=shape)
        self.steps_per_octave, self.needs_fit = steps_per_octave, steps_per_octave != 1
        self.register_buffer("scale", torch.tensor(1.0 if steps_per_octave == 1 else math.nan))

    @torch.no_grad()
    def fit(self, x: Tensor, *, cost: Cost | None = None) -> None:
        """Choose the scale (log-sqrt2 only; log2 has none) for values `x` in [0, 1], any shape.

        Args:
            x: the values to be quantized.
            cost: the error of a quantized `x` (same shape), 0-d; the sum of squared errors if not given.

        Raises:
            ValueError: `x` holds NaN, infinity or negative values; a NaN cost.
        """
        require_finite(x, title="logarithmic", negative=False)
        if self.steps_per_octave == 1:
            return
        values = sampled_values(x.detach().float())
        candidates = torch.quantile(values, values.new_tensor(PERCENTILES)).clamp(min=torch.finfo(values.dtype).tiny)
        if cost is None:
            errors = [((self._round(values, scale) - values) ** 2).sum() for scale in candidates]
        else:
            errors = [cost(self._round(x, scale)) for scale in candidates]
        self.scale.copy_(candidates[least(torch.stack(errors))])

    def forward(self, x: Tensor) -> Tensor:
        """Fake quantization, same shape; straight-through gradient."""
        rounded = self._round(x.detach(), self.scale)
        return x + (rounded - x).detach() if torch.is_grad_enabled() and x.requires_grad else rounded

    def codes(self, x: Tensor) -> Tensor:
        """Integer codes 0..2^bits - 1, as int32 (int64 for float64); the last code means zero."""
        return self._codes(x, self.scale)

    def decode(self, codes: Tensor) -> Tensor:
        """Real values of integer codes."""
        levels = self.scale * torch.exp2(-codes.float() / self.steps_per_octave)
        return torch.where(codes == 2**self.bits - 1, 0.0, levels)

    def int8_planes(self) -> Octaves:
        return Octaves(self.bits, self.scale.item(), self.steps_per_octave)

    def onnx_form(self) -> Octaves:
        return self.int8_planes()

    def check(self) -> None:
        require_positive(self.scale)

    def _codes(self, x: Tensor, scale: Tensor) -> Tensor:
        """The nearest code in the logarithm, from the bits of the float: its exponent is the floor of its log2."""
        ratio = widened(x) / scale
        integer, width, bias = FLOAT_BITS[ratio.dtype]
        if self.steps_per_octave == 2:  # an octave of the square is half an octave of the value
            ratio.mul_(2.0 ** (bias // 2)).square_()
            bias += bias // 2 * 2
        codes = (ratio.mul_(math.sqrt(2)).view(integer) >> width).neg_().add_(bias)  # half a step more: floor is nearest
        last = 2**self.bits - 1  # of zero, which has the code `bias` until here
        return codes.masked_fill_(codes == bias, last).clamp_(0, last) if last > bias else codes.clamp_(0, last)

    def _round(self, x: Tensor, scale: Tensor) -> Tensor:
        codes = self._codes(x, scale)
        levels = codes.to(scale.dtype).mul_(-1 / self.steps_per_octave).exp2_().mul_(scale)
        levels.masked_fill_(codes == 2**self.bits - 1, 0.0)
        return levels.add_(x, alpha=0).to(x.dtype)  # adds nothing but NaN, which so stays NaN

    def extra_repr(self) -> str:
        return f"bits={self.bits}, steps_per_octave={self.steps_per_octave}"
