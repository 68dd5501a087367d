import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitdfq.quantization.quantizers.dynamic import TokenUniform


def tokens(seed=0):
    return torch.randn(2, 7, 33, generator=torch.Generator().manual_seed(seed)) + 0.3


@given(st.integers(2, 8), st.booleans(), st.integers(0, 2**31), st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=25)
def test_every_token_has_a_grid(bits, symmetric, seed, size):
    x = tokens(seed) * size
    quantizer = TokenUniform(bits, symmetric=symmetric)
    codes, once = quantizer.codes(x), quantizer(x)
    assert codes.dtype == torch.int32 and codes.min() >= 0 and codes.max() <= 2**bits - 1
    assert torch.equal(quantizer.decode(codes, like=x), once)
    scale, zero_point = quantizer.qparams(x)
    assert scale.shape == zero_point.shape == (2, 7, 1)
    # A whole step at the ends: a rounded zero point moves the range by up to half of one.
    assert ((once - x).abs() <= scale * 1.0001).all()
    assert ((once - x).abs() <= scale * 0.5001)[(codes > 0) & (codes < 2**bits - 1)].all()
    assert torch.equal(quantizer(torch.zeros_like(x)), torch.zeros_like(x))


def test_tokens_are_independent():
    x = tokens() * torch.logspace(-3, 3, 7)[:, None]
    together = TokenUniform(4)(x)
    for token in range(7):
        assert torch.equal(TokenUniform(4)(x[:, token]), together[:, token])


@pytest.mark.parametrize("constant", [0.0, 0.25, -3.0])
def test_constants_are_kept(constant):
    x = torch.full((3, 5), constant)
    torch.testing.assert_close(TokenUniform(4)(x), x)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_values_are_refused(bad):
    x = tokens()
    x[0, 0, 0] = bad
    with pytest.raises(ValueError, match="NaN"):
        TokenUniform(4).fit(x)


def test_nothing_is_stored():
    quantizer = TokenUniform(4)
    quantizer.fit(tokens())
    assert not quantizer.state_dict()


def test_gradient_passes_straight_through():
    x = tokens().requires_grad_()
    quantizer = TokenUniform(4)
    quantizer(x).sum().backward()
    codes = quantizer.codes(x)
    assert (x.grad[(codes > 0) & (codes < 15)] == 1).all()


def test_bfloat16_tokens_have_float32_scales():
    x = tokens().bfloat16()
    quantizer = TokenUniform(8)
    assert quantizer.qparams(x)[0].dtype == torch.float32
    assert torch.equal(quantizer(x), quantizer(x.float()).bfloat16())
