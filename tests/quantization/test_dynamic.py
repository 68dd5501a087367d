import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitdfq.quantization.quantizers.dynamic import DIMENSIONS, DynamicUniform

SHAPES = {"token": (2, 7, 1), "column": (2, 1, 33), "matrix": (2, 1, 1)}  # of the scale of `tokens`


def tokens(seed=0):
    return torch.randn(2, 7, 33, generator=torch.Generator().manual_seed(seed)) + 0.3


def whole(bits, **options):
    """A quantizer that covers the whole range."""
    quantizer = DynamicUniform(bits, observer="min_max", **options)
    quantizer.fit(tokens())
    return quantizer


def fitted(bits, x, importance=None, **options):
    quantizer = DynamicUniform(bits, **options)
    quantizer.fit(x, importance=importance)
    return quantizer


@given(st.integers(2, 8), st.booleans(), st.sampled_from(sorted(DIMENSIONS)), st.integers(0, 2**31), st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=25)
def test_every_range_has_a_grid(bits, symmetric, along, seed, size):
    x = tokens(seed) * size
    quantizer = whole(bits, symmetric=symmetric, along=along)
    codes, once = quantizer.codes(x), quantizer(x)
    assert codes.dtype == torch.int32 and codes.min() >= 0 and codes.max() <= 2**bits - 1
    assert torch.equal(quantizer.decode(codes, like=x), once)
    scale, zero_point = quantizer.qparams(x)
    assert scale.shape == zero_point.shape == SHAPES[along]
    # A whole step at the ends: a rounded zero point moves the range by up to half of one.
    assert ((once - x).abs() <= scale * 1.0001).all()
    assert ((once - x).abs() <= scale * 0.5001)[(codes > 0) & (codes < 2**bits - 1)].all()
    assert torch.equal(quantizer(torch.zeros_like(x)), torch.zeros_like(x))


@given(st.integers(2, 8), st.booleans(), st.sampled_from(sorted(DIMENSIONS)), st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_the_share_that_is_fitted_is_no_worse_than_the_whole_range(bits, symmetric, along, seed):
    x = tokens(seed)
    clipped, covering = fitted(bits, x, symmetric=symmetric, along=along), whole(bits, symmetric=symmetric, along=along)
    error, error_of_whole = ((quantizer(x) - x).square().sum() for quantizer in (clipped, covering))
    assert error <= error_of_whole * 1.0001 and 0 < clipped.clip <= 1
    scale, zero_point = covering.qparams(x)
    torch.testing.assert_close(clipped.qparams(x), (scale * clipped.clip, zero_point))


def test_few_bits_clip_more_and_channels_of_no_importance_do_not_count():
    x = torch.randn(64, 7, 384, generator=torch.Generator().manual_seed(0))
    shares = [float(fitted(bits, x).clip) for bits in (2, 3, 4, 8)]
    assert shares == sorted(shares) and shares[0] < 0.7 and shares[-1] > 0.9
    x[..., 0] = 20 * torch.sign(x[..., 0])
    importance = torch.ones(384)
    counted = fitted(4, x, importance=importance).clip
    importance[0] = 0
    assert fitted(4, x, importance=importance).clip < counted


@pytest.mark.parametrize("observer", ["min_max", "mse"])
def test_tokens_are_independent(observer):
    x = tokens() * torch.logspace(-3, 3, 7)[:, None]
    quantizer = fitted(4, x, observer=observer)
    together = quantizer(x)
    for token in range(7):
        assert torch.equal(quantizer(x[:, token]), together[:, token])


@pytest.mark.parametrize("constant", [0.0, 0.25, -3.0])
def test_constants_are_kept(constant):
    x = torch.full((3, 5), constant)
    torch.testing.assert_close(fitted(4, x)(x), x)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_values_are_refused(bad):
    x = tokens()
    x[0, 0, 0] = bad
    with pytest.raises(ValueError, match="NaN"):
        DynamicUniform(4).fit(x)


def test_kinds_of_ranges_and_observers_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="row"):
        DynamicUniform(4, along="row")
    with pytest.raises(ValueError, match="median"):
        DynamicUniform(4, observer="median")


def test_the_share_alone_is_stored_and_codes_need_their_values():
    quantizer = DynamicUniform(4)
    assert not quantizer.is_fitted
    quantizer.fit(tokens())
    assert quantizer.is_fitted and list(quantizer.state_dict()) == ["clip"]
    with pytest.raises(ValueError, match="like=values"):
        quantizer.decode(quantizer.codes(tokens()))
    quantizer.clip.fill_(0.0)
    with pytest.raises(ValueError, match="not positive"):
        quantizer.check()


def test_gradient_passes_straight_through_and_reaches_the_share():
    x = tokens().requires_grad_()
    quantizer = fitted(4, tokens())
    quantizer.clip.requires_grad_()
    quantizer(x).sum().backward()
    codes = quantizer.codes(x)
    assert (x.grad[(codes > 0) & (codes < 15)] == 1).all() and (x.grad[codes == 15] == 0).any()
    scale, zero_point = (state.detach() for state in quantizer.qparams(x))
    steps = (x.detach() / scale).round()
    inside = (steps >= -zero_point) & (steps <= 15 - zero_point)
    slope = torch.where(inside, steps - x.detach() / scale, steps.clamp(-zero_point, 15 - zero_point))
    torch.testing.assert_close(quantizer.clip.grad, (slope * scale / quantizer.clip.detach()).sum())


def test_bfloat16_tokens_have_float32_scales():
    x = tokens().bfloat16()
    quantizer = fitted(8, tokens())
    assert quantizer.qparams(x)[0].dtype == torch.float32
    assert torch.equal(quantizer(x), quantizer(x.float()).bfloat16())
