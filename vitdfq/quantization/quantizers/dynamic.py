"""Dynamic uniform grid: its range follows the values, as they arrive."""

import math

import torch
from torch import Tensor

from vitdfq.common.lookup import lookup
from vitdfq.quantization.clip_search import Cost
from vitdfq.quantization.functional import choose_qparams, dequantize_affine, fake_quantize, widened
from vitdfq.quantization.observers import OBSERVERS
from vitdfq.quantization.quantizers.affine import AffineQuantizer
from vitdfq.quantization.quantizers.base import require_finite, require_positive
from vitdfq.quantization.quantizers.forms import OnnxForm, TokenAffine

DIMENSIONS = {"token": -1, "column": -2, "matrix": (-2, -1)}  # what shares a range -> the dimensions of its values
CLIPS = 33  # shares of the range that `fit` tries
LEAST_CLIP = 0.36
MOST_VALUES = 2**21  # a sample of the values tells one share from another


class DynamicUniform(AffineQuantizer):
    """A uniform quantizer of activations (..., N, C) with a scale for each token, column or matrix: that of its own values.

    The grid covers a share of the range between minimum and maximum, the same share everywhere, and clips what is outside: the
    largest of some hundred values is far from the others, and a grid of few bits is better off without it. The share is fitted,
    and can be trained; scales and zero points are not stored. As no scale is kept, codes have a meaning only together with the
    values they came from: `decode` needs these as `like`. Rounded values have a smaller range, so that rounding them once more
    changes them, unless the share is 1.

    Args:
        bits: 2 to 8.
        symmetric: put zero on the middle code.
        observer: as of `Uniform`; "min_max" covers the whole range.
        along: what shares a range: each "token" (N), each "column" (C), for the right operand of a product, or each "matrix".

    Buffer `clip`, (), is NaN until `fit`.

    Raises:
        ValueError: an observer or a kind of range that does not exist.
    """

    is_dynamic = True
    trained = "clip"
    measures = frozenset({"importance"})
    clip: Tensor

    def __init__(self, bits: int, *, symmetric: bool = False, observer: str = "mse", along: str = "token") -> None:
        super().__init__(bits)
        lookup(observer, OBSERVERS, "observer")
        self.dimensions = lookup(along, DIMENSIONS, "kind of range")
        self.symmetric, self.observer, self.along = symmetric, observer, along
        self.register_buffer("clip", torch.tensor(math.nan))

    @torch.no_grad()
    def fit(self, x: Tensor, *, cost: Cost | None = None, importance: Tensor | None = None) -> None:
        """Choose the share of the ranges that the grids cover, by the squared error of the values.

        Args:
            x: the values, (..., N, C).
            cost: not used: shares differ too little for an error that is measured further on.
            importance: (C,) weights of the channels.

        Raises:
            ValueError: `x` holds NaN or infinity.
        """
        require_finite(x)
        self.clip.fill_(1.0)
        if self.observer == "min_max" or not x.numel():
            return
        x = x[:: -(-x.numel() // MOST_VALUES)]
        scale, zero_point = self.qparams(x)
        shares = torch.linspace(1.0, LEAST_CLIP, CLIPS)
        errors = [self._error(x, scale * share, zero_point, importance) for share in shares.tolist()]
        self.clip.copy_(shares[errors.index(min(errors))])

    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of each token (..., N, 1), column (..., 1, C) or matrix (..., 1, 1), in at least float32.

        The gradient of a scale is that of `clip`; minimum and maximum are constants to it.
        """
        with torch.no_grad():
            low, high = (widened(end) for end in self._ends(x))
            scale, zero_point = choose_qparams(low, high, self.bits, self.symmetric)
        return scale * self.clip, zero_point

    def decode(self, codes: Tensor, *, like: Tensor | None = None) -> Tensor:
        """Real values of the codes of `like`; equals `forward(like)`.

        Raises:
            ValueError: `like` is not given.
        """
        if like is None:
            raise ValueError("codes with a scale of their own values need these: decode(codes, like=values)")
        return dequantize_affine(codes, *self.qparams(like))

    def int8_planes(self) -> TokenAffine:
        return TokenAffine(self.bits, self.symmetric, dynamic=True)

    def onnx_form(self) -> OnnxForm:
        return self.int8_planes()

    def check(self) -> None:
        require_positive(self.clip)

    def extra_repr(self) -> str:
        grid = "symmetric" if self.symmetric else "asymmetric"
        return f"bits={self.bits}, {grid}, dynamic per_{self.along}, observer={self.observer}"

    def _ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.dimensions, int):
            low, high = torch.aminmax(x, dim=self.dimensions, keepdim=True)
            return low, high
        low, high = torch.aminmax(x.flatten(-2), dim=-1, keepdim=True)
        return low[..., None], high[..., None]

    def _error(self, x: Tensor, scale: Tensor, zero_point: Tensor, importance: Tensor | None) -> float:
        squared = (fake_quantize(x, scale, zero_point, self.bits) - x).square()
        return float((squared if importance is None else squared * importance).sum())
