"""Dynamic uniform grid: each token brings its own range."""

import torch
from torch import Tensor, nn

from vitdfq.quantization.functional import choose_qparams, dequantize_affine, fake_quantize, quantize_affine, widened


class TokenUniform(nn.Module):
    """A uniform quantizer of activations (..., C) with a scale a token: the range of its own C values, taken when it arrives.

    Nothing is calibrated and nothing stored; the price is a minimum and a maximum a token at run time. As there is no scale to
    keep, codes mean something only together with their token: `decode` is given the values again, or see `qparams`.

    Args:
        bits: 2 to 8.
        symmetric: put zero on the middle code.
    """

    def __init__(self, bits: int, *, symmetric: bool = False) -> None:
        super().__init__()
        self.bits, self.symmetric = bits, symmetric

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Nothing to choose; only refuses values that no range covers.

        Raises:
            ValueError: `x` holds NaN or infinity.
        """
        if not x.isfinite().all():
            raise ValueError("cannot fit a quantizer on values that are NaN or infinite")

    @torch.no_grad()
    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of each token of `x` (..., C), both (..., 1), in at least float32; constants to the gradient."""
        low, high = (widened(end) for end in torch.aminmax(x, dim=-1, keepdim=True))
        return choose_qparams(low, high, self.bits, self.symmetric)

    def forward(self, x: Tensor) -> Tensor:
        """Fake quantization, same shape; straight-through gradient."""
        return fake_quantize(x, *self.qparams(x), self.bits)

    def codes(self, x: Tensor) -> Tensor:
        """Integer codes 0..2^bits - 1, same shape, as int32."""
        return quantize_affine(x, *self.qparams(x), self.bits).to(torch.int32)

    def decode(self, codes: Tensor, *, like: Tensor) -> Tensor:
        """Real values of the codes of `like`; equals `forward(like)`."""
        return dequantize_affine(codes, *self.qparams(like))

    def extra_repr(self) -> str:
        return f"bits={self.bits}, {'symmetric' if self.symmetric else 'asymmetric'}, per_token"
