"""Grids per token and per head: products of integers, with the scales as factors of rows and heads."""

import pytest
import torch
from torch import Tensor, nn

from vitdfq.quantization import QUANTIZERS
from vitdfq.quantization.modules import QuantLinear, QuantMatMul
from vitdfq.quantization.quantizers.base import Quantizer
from vitdfq.quantization.quantizers.dynamic import DynamicUniform
from vitdfq.quantization.quantizers.prefix import PrefixUniform
from vitdfq.quantization.quantizers.uniform import Uniform

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from vitdfq.onnx import activations, layout, runtime, trace  # noqa: E402
from vitdfq.onnx.modules import Linear, Product  # noqa: E402

HEADS, TOKENS, WIDTH = 3, 6, 16


class Operands(nn.Module):
    """Passes the image (B, 3, N, C) to a layer of tokens, or as (B, H, N, C) and transposed to a product of two operands."""

    def __init__(self, site: nn.Module) -> None:
        super().__init__()
        self.site = site
        self.device = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.site(x, (x + 0.5).transpose(2, 3)) if isinstance(self.site, Product | QuantMatMul) else self.site(x)


def random_tokens(batch: int) -> Tensor:
    """Heads and tokens of different sizes and means, the first token the largest."""
    rng = torch.Generator().manual_seed(batch)
    sizes = torch.tensor([1.0, 0.1, 5.0]).view(HEADS, 1, 1) * torch.linspace(4, 0.2, TOKENS).view(TOKENS, 1)
    return sizes * (torch.randn(batch, HEADS, TOKENS, WIDTH, generator=rng) + torch.tensor([2.0, 0.0, -1.0]).view(HEADS, 1, 1))


def linear(inputs: Quantizer) -> QuantLinear:
    layer = QuantLinear(nn.Linear(WIDTH, 5), QUANTIZERS["uniform"](4, shape=(5, 1)), inputs)
    layer.input_shift.copy_(0.1 * torch.arange(WIDTH))
    layer.weight_quantizer.fit(layer.weight.detach())
    layer.input_quantizer.fit(random_tokens(4))
    return layer


def product(bits: int, *, renormalize: bool, shift: Tensor | None, per_head: bool = True) -> QuantMatMul:
    shape = (HEADS, 1, 1)
    site = QuantMatMul(
        Uniform(bits, shape=shape if per_head else ()), Uniform(bits, shape=shape), renormalize=renormalize, left_shift=shift
    )
    site.left_quantizer.fit(random_tokens(4))
    site.right_quantizer.fit((random_tokens(4) + 0.5).transpose(2, 3))
    return site


def queries_by_keys(bits: int, *, shift: Tensor | None) -> QuantMatMul:
    return fitted_product(DynamicUniform(bits), DynamicUniform(bits, along="column"), shift)


def probabilities_by_values(bits: int) -> QuantMatMul:
    return fitted_product(Uniform(bits), DynamicUniform(bits, along="matrix"))


def fitted_product(left: Quantizer, right: Quantizer, shift: Tensor | None = None) -> QuantMatMul:
    left.fit(random_tokens(4))
    right.fit((random_tokens(4) + 0.5).transpose(2, 3))
    return QuantMatMul(left, right, left_shift=shift)


SHIFT = 0.3 * torch.arange(HEADS * WIDTH).view(HEADS, 1, WIDTH) / WIDTH
SITES = {
    "prefix tokens": lambda: linear(PrefixUniform(4, prefix=2)),
    "prefix tokens, 7 bits": lambda: linear(PrefixUniform(7, prefix=1)),
    "prefix tokens, 8 bits, symmetric": lambda: linear(PrefixUniform(8, prefix=1, symmetric=True)),
    "each token": lambda: linear(DynamicUniform(6)),
    "each query and key": lambda: queries_by_keys(4, shift=None),
    "each query and key, shifted": lambda: queries_by_keys(6, shift=SHIFT),
    "each head": lambda: probabilities_by_values(4),
    "heads": lambda: product(4, renormalize=False, shift=None),
    "heads, shifted": lambda: product(6, renormalize=False, shift=SHIFT),
    "heads, renormalized": lambda: product(4, renormalize=True, shift=None),
    "heads on the right": lambda: product(6, renormalize=True, shift=SHIFT, per_head=False),
}


@pytest.mark.parametrize("site", SITES)
def test_integers_are_multiplied_and_the_result_is_the_students(site, monkeypatch, tmp_path):
    monkeypatch.setattr(trace, "image_size", lambda model: (TOKENS, WIDTH))
    quantized = SITES[site]().eval()
    exported = Linear(quantized) if isinstance(quantized, QuantLinear) else Product(quantized)
    data = trace.traced(Operands(exported)).SerializeToString()
    for batch in (1, 3):
        x = random_tokens(batch)
        expected = Operands(quantized)(x)
        torch.testing.assert_close(runtime.outputs(data, x)[0], expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    runtime.session(data, optimized=tmp_path / "optimized.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert sum(name in runtime.INTEGER for name in operators) == 1


@pytest.mark.parametrize("quantizer", [DynamicUniform(8), PrefixUniform(8, prefix=1), Uniform(8, shape=(HEADS, 1, 1))])
def test_eight_bits_with_zero_points_of_their_own_stay_in_float(quantizer):
    assert layout.stored_bits(quantizer) == 9  # -255..255
    assert activations.exportable(quantizer) is quantizer


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
def test_stored_integers_have_the_bits_that_products_are_chosen_by(bits, symmetric):
    """Extreme tokens, all of one sign: the stored bytes reach as far as `fits_int8` assumes, and no further."""
    quantizer = DynamicUniform(bits, symmetric=symmetric, observer="min_max")
    quantizer.fit(torch.zeros(1))
    if layout.stored_bits(quantizer) > 8:
        return
    zero_point = int(activations.exportable(quantizer).zero_point)
    x = torch.stack([torch.linspace(0, 1, 9), torch.linspace(-1, 0, 9)])
    stored = (quantizer(x) / quantizer.qparams(x)[0]).round() + zero_point
    largest = 2 ** layout.stored_bits(quantizer) - 1
    assert 0 <= stored.min() <= 1 and largest - 1 <= stored.max() <= largest
