"""Static uniform grid of tokens: ranges of their own for the class token and the registers, one range for all patches."""

import math

import torch
from torch import Tensor

from vitdfq.common.lookup import lookup
from vitdfq.quantization.clip_search import Cost, search_tensor
from vitdfq.quantization.observers import OBSERVERS
from vitdfq.quantization.quantizers.affine import AffineQuantizer
from vitdfq.quantization.quantizers.base import require_finite, require_positive, require_zero_point
from vitdfq.quantization.quantizers.forms import Affine, OnnxForm, TokenAffine


class PrefixUniform(AffineQuantizer):
    """A uniform quantizer of tokens (..., N, C): a scale for each of the first tokens, and one for all that follow.

    The class token and the registers of a ViT are much larger than patches, or smaller. On a common grid of four bits one of the
    two has a few levels only. In an integer product the scale of a token is a factor of its row.

    Args:
        bits: 2 to 8.
        prefix: tokens in front of the patches, each with a scale of its own: at least 1.
        symmetric, observer: as of `Uniform`.

    Buffers `scale` and `zero_point`, (prefix + 1, 1), are NaN until `fit`.

    Raises:
        ValueError: an observer that does not exist.
    """

    trained = "scale"
    measures = frozenset({"importance"})
    scale: Tensor
    zero_point: Tensor

    def __init__(self, bits: int, *, prefix: int, symmetric: bool = False, observer: str = "mse") -> None:
        super().__init__(bits)
        self.guided = lookup(observer, OBSERVERS, "observer").guided
        self.prefix, self.symmetric, self.observer = prefix, symmetric, observer
        self.register_buffer("scale", torch.full((prefix + 1, 1), math.nan))
        self.register_buffer("zero_point", torch.full((prefix + 1, 1), math.nan))

    @torch.no_grad()
    def fit(self, x: Tensor, *, cost: Cost | None = None, importance: Tensor | None = None) -> None:
        """Choose the scales and zero points for tokens `x` (..., N, C), N > prefix, each by the error of its own tokens.

        Args:
            x: the tokens.
            cost: not used: an error of all tokens does not tell their scales apart.
            importance: (C,) weights of the channels.

        Raises:
            ValueError: no tokens behind the prefix; `x` holds NaN or infinity; observer "output_error" without importance.
        """
        if x.ndim < 2 or x.shape[-2] <= self.prefix:
            raise ValueError(
                f"values have shape {tuple(x.shape)}; a scale for each of {self.prefix} first tokens needs more tokens"
            )
        require_finite(x)
        if self.guided and importance is None:
            raise ValueError(f"observer {self.observer!r} needs importance=")
        parts = [x[..., index : index + 1, :] for index in range(self.prefix)] + [x[..., self.prefix :, :]]
        for index, part in enumerate(parts):
            scale, zero_point = search_tensor(part, self.bits, self.symmetric, importance, observer=self.observer)
            self.scale[index] = scale[0]
            self.zero_point[index] = zero_point[0]

    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of each token of `x` (..., N, C), both (N, 1)."""
        return self._by_token(self.scale, x), self._by_token(self.zero_point, x)

    @property
    def affine(self) -> Affine:
        return Affine(self.bits, self.scale, self.zero_point, self.symmetric, granularity="prefix")

    def int8_planes(self) -> TokenAffine:
        return TokenAffine(self.bits, self.symmetric, dynamic=False)

    def onnx_form(self) -> OnnxForm:
        return self.int8_planes()

    def check(self) -> None:
        require_positive(self.scale)
        require_zero_point(self.zero_point, self.bits)

    def extra_repr(self) -> str:
        grid = "symmetric" if self.symmetric else "asymmetric"
        return f"bits={self.bits}, {grid}, {self.prefix} prefix tokens apart, observer={self.observer}"

    def _by_token(self, state: Tensor, x: Tensor) -> Tensor:
        return torch.cat([state[:-1], state[-1:].expand(x.shape[-2] - self.prefix, 1)])
