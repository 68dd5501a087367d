"""Contracts that every quantizer in QUANTIZERS keeps, by name; a new one enrols itself."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantizer_values import NAMES, fitted, values

from vitdfq.quantization import QUANTIZERS
from vitdfq.quantization.quantizers.base import require_finite
from vitdfq.quantization.quantizers.logarithmic import Logarithmic

BITS = [2, 3, 4, 6, 8]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", BITS)
def test_codes_are_integers_in_range_and_decode_to_forward(name, bits):
    x = values(name, 0)
    quantizer = fitted(name, bits, x)
    codes = quantizer.codes(x)
    assert codes.dtype == torch.int32
    assert codes.min() >= 0 and codes.max() <= 2**bits - 1
    assert torch.equal(quantizer.decode(codes), quantizer(x))
    assert quantizer(x).unique().numel() <= 2**bits


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", BITS)
def test_idempotent_monotone_and_zero_stays_zero(name, bits):
    x = values(name, 1).sort().values
    quantizer = fitted(name, bits, x)
    once = quantizer(x)
    assert torch.equal(quantizer(once), once)
    assert (once.diff() >= 0).all()
    assert (once[x == 0] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_more_bits_have_less_error(name):
    x = values(name, 2)
    errors = [(fitted(name, bits, x)(x) - x).square().mean() for bits in (2, 4, 8)]
    assert errors[0] > errors[1] >= errors[2]


@pytest.mark.parametrize("name", NAMES)
def test_gradient_passes_straight_through(name):
    x = values(name, 3).requires_grad_()
    quantizer = fitted(name, 4, x.detach())
    quantizer(x).sum().backward()
    inside = (x > 0.05) & (x < 0.5)  # neither clipped nor rounded to zero by any grid
    assert torch.equal(x.grad[inside], torch.ones_like(x)[inside])


@pytest.mark.parametrize("name", NAMES)
def test_gradient_mode_does_not_change_the_values(name):
    x = values(name, 4)
    quantizer = fitted(name, 4, x)
    with torch.no_grad():
        expected = quantizer(x)
    torch.testing.assert_close(quantizer(x.clone().requires_grad_()), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_the_cost_decides_when_one_is_given(name):
    """`cost` takes what `forward` returns, and one that likes the worst fit changes the choice, unless there is none."""
    x = values(name, 8).view(4, 10, 100)
    usual, unusual = fitted(name, 4, x), QUANTIZERS[name](4)
    seen: list[torch.Tensor] = []

    def likes_error(x_hat: torch.Tensor) -> torch.Tensor:
        assert x_hat.shape == x.shape and x_hat.dtype == x.dtype and not x_hat.requires_grad
        seen.append(x_hat)
        return -(x_hat - x).square().sum()

    unusual.fit(x, cost=likes_error)
    assert torch.equal(unusual(x), usual(x)) == (name == "log2")
    if name != "log2":
        worst = min(seen, key=lambda x_hat: -(x_hat - x).square().sum())
        assert torch.equal(unusual(x), worst)


@pytest.mark.parametrize("name", NAMES)
def test_cost_is_a_keyword_only(name):
    cost = inspect.signature(QUANTIZERS[name](4).fit).parameters["cost"]
    assert cost.kind is cost.KEYWORD_ONLY and cost.default is None


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"log2"}))
def test_a_cost_that_is_nan_is_refused(name):
    with pytest.raises(ValueError, match="cost of a quantized tensor is NaN"):
        QUANTIZERS[name](4).fit(values(name, 9), cost=lambda x_hat: x_hat.sum() * torch.nan)


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_nan(name):
    x = values(name, 10)
    quantizer = fitted(name, 4, x)
    x[7] = torch.nan
    assert quantizer(x)[7].isnan() and quantizer(x).isnan().sum() == 1


@pytest.mark.parametrize("name", NAMES)
def test_views_and_other_dtypes_are_rounded_the_same(name):
    x = values(name, 11)
    quantizer = fitted(name, 4, x)
    turned = x.view(40, 100).T
    assert torch.equal(quantizer(turned), quantizer(x).view(40, 100).T)
    assert quantizer(x.double()).dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_state_round_trip(name):
    x = values(name, 5)
    quantizer, other = fitted(name, 4, x), QUANTIZERS[name](4)
    other.load_state_dict(quantizer.state_dict(), strict=True)
    assert torch.equal(other(x), quantizer(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_values_are_refused(name, bad):
    x = values(name, 6)
    x[5] = bad
    with pytest.raises(ValueError, match="NaN"):
        fitted(name, 4, x)


def test_values_to_fit_on_are_finite_and_of_the_signs_that_the_quantizer_takes():
    require_finite(torch.tensor([-1.0, 2.0]))
    require_finite(torch.empty(0), negative=False)
    with pytest.raises(ValueError, match=r"^cannot fit a quantizer on values that are NaN or infinite$"):
        require_finite(torch.tensor([-1.0, torch.inf]))
    with pytest.raises(ValueError, match=r"^cannot fit a log quantizer on values that are negative, NaN or infinite$"):
        require_finite(torch.tensor([-1.0]), title="log", negative=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("constant", [0.0, 0.25])
def test_constant_input_gives_finite_output(name, constant):
    x = torch.full((100,), constant)
    assert fitted(name, 4, x)(x).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bits", [2, 4, 6, 8])
@pytest.mark.parametrize("steps", [1, 2])
def test_logarithmic_codes_are_the_nearest_of_the_logarithm(steps, bits, dtype):
    quantizer = Logarithmic(bits, steps_per_octave=steps)
    quantizer.fit(torch.tensor([0.7]))
    exponents = torch.rand(10_000, generator=torch.Generator().manual_seed(bits), dtype=torch.float64) * 125
    exact = exponents * steps
    clear = (exact.frac() - 0.5).abs() > 1e-4  # of a boundary between two codes
    codes = quantizer.codes((2.0**-exponents * quantizer.scale.double()).to(dtype))
    assert torch.equal(codes[clear].double(), exact.round().clamp(max=2**bits - 1)[clear])
    edges = torch.tensor([0.0, 5.0, torch.inf], dtype=dtype)
    assert quantizer.codes(edges).tolist() == [2**bits - 1, 0, 0] and quantizer(edges)[0] == 0


@pytest.mark.parametrize("steps", [1, 2])
def test_logarithmic_of_nan_is_nan(steps):
    quantizer = Logarithmic(4, steps_per_octave=steps)
    quantizer.fit(torch.tensor([0.7]))
    assert quantizer(torch.tensor([torch.nan, 0.5])).isnan().tolist() == [True, False]


def test_log2_ratio_is_within_half_an_octave():
    x = values("log2", 7)
    rounded = fitted("log2", 4, x)(x)
    kept = rounded > 0
    ratio = rounded[kept] / x[kept]
    assert ratio.min() >= 2**-0.5 - 1e-6 and ratio.max() <= 2**0.5 + 1e-6
    assert torch.equal(rounded[x == 1.0], torch.ones(1))
    assert (x[~kept] <= 2**-14.4).all()


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"log2"}))  # which needs no fit
def test_nan_until_fitted(name):
    assert QUANTIZERS[name](4)(torch.ones(3)).isnan().all()


@given(st.integers(2, 8), st.booleans(), st.integers(0, 2**31), st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=40)
def test_uniform_error_is_at_most_half_a_step_inside_the_range(bits, symmetric, seed, size):
    x = torch.randn(2000, generator=torch.Generator().manual_seed(seed)) * size + 0.3 * size
    quantizer = QUANTIZERS["uniform"](bits, symmetric=symmetric)
    quantizer.fit(x)
    low = -quantizer.zero_point * quantizer.scale
    high = (2**bits - 1 - quantizer.zero_point) * quantizer.scale
    inside = (x >= low) & (x <= high)
    assert ((quantizer(x) - x).abs()[inside] <= quantizer.scale * 0.5001).all()
    assert quantizer.zero_point == quantizer.zero_point.round()


def test_per_channel_rows_are_independent():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 8)[:, None]
    quantizer = QUANTIZERS["uniform"](4, shape=(8, 1))
    quantizer.fit(weight)
    for row in range(8):
        alone = QUANTIZERS["uniform"](4, shape=(1, 1))
        alone.fit(weight[row : row + 1])
        assert torch.equal(alone.scale[0], quantizer.scale[row])


@pytest.mark.parametrize("name", NAMES)
def test_sixteen_bit_values_get_the_codes_of_the_same_values_in_float32(name):
    x = values(name, 5).bfloat16()
    quantizer = fitted(name, 4, x.float())
    assert quantizer(x).dtype == torch.bfloat16
    assert torch.equal(quantizer.codes(x), quantizer.codes(x.float()))
    assert torch.equal(quantizer(x), quantizer(x.float()).bfloat16())
