"""Dynamic uniform grid: each token's own range, taken as the token arrives."""

import torch
from torch import Tensor

from vitdfq.quantization.clip_search import Cost
from vitdfq.quantization.functional import dequantize_affine, token_qparams
from vitdfq.quantization.quantizers.affine import AffineQuantizer
from vitdfq.quantization.quantizers.forms import OnnxForm, TokenAffine


class TokenUniform(AffineQuantizer):
    """A uniform quantizer of activations (..., C) with a scale for each token: the range of its own C values.

    Nothing is calibrated and nothing is stored; the price is a minimum and a maximum of each token at run time. As no scale is
    kept, codes have a meaning only together with the values they came from: `decode` needs these as `like`.

    Args:
        bits: 2 to 8.
        symmetric: put zero on the middle code.
    """

    needs_fit = False
    per_token = True

    def __init__(self, bits: int, *, symmetric: bool = False) -> None:
        super().__init__(bits)
        self.symmetric = symmetric

    @torch.no_grad()
    def fit(self, x: Tensor, *, cost: Cost | None = None) -> None:
        """Check the values; there is nothing to choose.

        Raises:
            ValueError: `x` holds NaN or infinity.
        """
        if not x.isfinite().all():
            raise ValueError("cannot fit a quantizer on values that are NaN or infinite")

    @torch.no_grad()
    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of each token of `x` (..., C), both (..., 1), in at least float32; constants to the gradient."""
        return token_qparams(x, self.bits, self.symmetric)

    def decode(self, codes: Tensor, *, like: Tensor | None = None) -> Tensor:
        """Real values of the codes of `like`; equals `forward(like)`.

        Raises:
            ValueError: `like` is not given.
        """
        if like is None:
            raise ValueError("codes with a scale for each token need the values they came from: decode(codes, like=values)")
        return dequantize_affine(codes, *self.qparams(like))

    def int8_planes(self) -> TokenAffine:
        return TokenAffine(self.bits, self.symmetric, dynamic=True)

    def onnx_form(self) -> OnnxForm:
        return self.int8_planes()

    def extra_repr(self) -> str:
        return f"bits={self.bits}, {'symmetric' if self.symmetric else 'asymmetric'}, per_token"
