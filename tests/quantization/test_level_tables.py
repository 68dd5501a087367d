"""What is particular to the quantizers that are tables of levels: adalog, shifted_log2, twin_softmax, twin_gelu."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitdfq.quantization import QUANTIZERS
from vitdfq.quantization import sample as sample_module
from vitdfq.quantization.quantizers.adalog import AdaLog
from vitdfq.quantization.quantizers.levels import Levels, squared_errors
from vitdfq.quantization.quantizers.twin import GELU_MINIMUM

NAMES = sorted(name for name, build in QUANTIZERS.items() if isinstance(build, type) and issubclass(build, Levels))
BITS = st.integers(2, 8)
SEEDS = st.integers(0, 2**31)
few = settings(deadline=None, max_examples=25)


def sample(seed: int, power: float, size: float = 1.0, count: int = 1000) -> torch.Tensor:
    """Values in [0, size], the more near zero the larger `power`."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) ** power * size


def every_table(name: str, bits: int, x: torch.Tensor) -> list[Levels]:
    """A quantizer for each candidate that `fit` compares on `x`."""
    found = []
    tables = QUANTIZERS[name](bits)
    candidates = tables.candidates(x.sort().values)
    for levels, boundaries in zip(*tables.tables(*candidates.split(1, dim=1)), strict=True):
        quantizer = QUANTIZERS[name](bits)
        quantizer.levels.copy_(levels)
        quantizer.boundaries.copy_(boundaries)
        found.append(quantizer)
    return found


def test_the_four_are_here():
    assert NAMES == ["adalog", "shifted_log2", "twin_gelu", "twin_softmax"]


@pytest.mark.parametrize("name", NAMES)
@given(bits=BITS, seed=SEEDS, power=st.floats(1, 12), size=st.sampled_from([1e-30, 1e-3, 0.3, 1.0, 7.0]))
@few
def test_every_candidate_is_monotone_idempotent_and_keeps_zero(name, bits, seed, power, size):
    x = sample(seed, power, size).sort().values
    x[0] = 0.0
    if name == "twin_gelu":
        x = torch.cat([-0.2 * x.flip(0), x])
    for quantizer in every_table(name, bits, x):
        once = quantizer(x)
        assert (once.diff() >= 0).all()
        assert torch.equal(quantizer(once), once)
        assert (once[x == 0] == 0).all()
        assert torch.equal(quantizer.decode(quantizer.codes(x)), once)
        assert once.unique().numel() <= 2**bits
        assert (quantizer.boundaries.diff() >= 0).all()


@pytest.mark.parametrize("name", NAMES)
@given(bits=BITS, seed=SEEDS, power=st.floats(1, 12))
@few
def test_the_search_finds_the_least_error_of_all_candidates(name, bits, seed, power):
    x = sample(seed, power)
    quantizer = QUANTIZERS[name](bits)
    quantizer.fit(x)
    error = (quantizer(x).double() - x).square().sum()
    for other in every_table(name, bits, x):  # both ends of the range among them
        assert error <= (other(x).double() - x).square().sum() * (1 + 1e-6) + 1e-12


@given(seed=SEEDS, bits=BITS, count=st.integers(1, 300))
@few
def test_squared_errors_from_running_sums_equal_rounding_every_value(seed, bits, count):
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(count, generator=rng).sort().values
    levels = torch.randn(5, 2**bits, generator=rng).sort(1).values
    boundaries = levels[:, :-1].lerp(levels[:, 1:], 0.7)  # no midpoints: there the side would make no difference
    values[0] = boundaries[0, 0]  # a value on a boundary goes below
    values = values.sort().values
    expected = []
    for row, edges in zip(levels, boundaries, strict=True):
        expected.append((row[(values[:, None] > edges).sum(1)].double() - values).square().sum())
    torch.testing.assert_close(squared_errors(values, levels, boundaries), torch.stack(expected))


@pytest.mark.parametrize("name", NAMES)
def test_large_tensors_are_searched_by_a_sample_that_keeps_the_extremes(name, monkeypatch):
    x = sample(0, 6.0, 0.5, count=20_000)
    x[12_345] = 4.0  # not among the 997 drawn
    exact = QUANTIZERS[name](8)
    exact.fit(x)
    monkeypatch.setattr(sample_module, "VALUES", 997)
    sampled = QUANTIZERS[name](8)
    seen = []
    monkeypatch.setattr(sampled, "candidates", lambda values: seen.append(values) or type(sampled).candidates(sampled, values))
    sampled.fit(x)
    assert len(seen[0]) == 999 and seen[0][-1] == 4.0 and seen[0][0] == x.min()
    errors = [(quantizer(x) - x).square().mean() for quantizer in (exact, sampled)]
    assert errors[1] <= 1.2 * errors[0]


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_where_a_value_is_clipped(name):
    x = sample(1, 6.0)
    quantizer = QUANTIZERS[name](4)
    quantizer.fit(x)
    top = quantizer.levels.max()
    probe = torch.stack([top * 0.4, top, top * 1.1, torch.tensor(-3.0)]).requires_grad_()
    rounded = quantizer(probe)
    rounded.sum().backward()
    assert probe.grad.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert torch.equal(rounded, quantizer(probe.detach()))  # bit for bit


@pytest.mark.parametrize("name", NAMES)
def test_values_beyond_the_levels_have_codes_and_the_state_is_finite(name):
    quantizer = QUANTIZERS[name](2)
    quantizer.fit(sample(2, 1.0))
    codes = quantizer.codes(torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, -1e30]))
    assert codes.min() >= 0 and codes.max() <= 3
    for value in [torch.inf, 1e30]:
        assert quantizer(torch.tensor(value)) == quantizer.levels.max()
        assert quantizer(torch.tensor(-value)) == quantizer.levels.min()
    for table in every_table(name, 2, sample(2, 1.0).sort().values):
        assert table.levels.isfinite().all() and table.boundaries.isfinite().all()  # `save` refuses anything else


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"twin_gelu"}))
def test_negative_values_are_refused(name):
    with pytest.raises(ValueError, match="negative"):
        QUANTIZERS[name](4).fit(torch.tensor([0.5, -0.1]))


@pytest.mark.parametrize("name", NAMES)
def test_a_scale_of_a_channel_is_refused(name):
    with pytest.raises(ValueError, match="per tensor"):
        QUANTIZERS[name](4, shape=(8, 1))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_fit_on_is_refused(name):
    with pytest.raises(ValueError, match="no values"):
        QUANTIZERS[name](4).fit(torch.empty(0))


@given(bits=BITS, seed=SEEDS, power=st.floats(1, 12))
@few
def test_twin_softmax_steps_differ_by_a_shift(bits, seed, power):
    x = sample(seed, power)
    x[0] = 1.0
    quantizer = QUANTIZERS["twin_softmax"](bits)
    quantizer.fit(x)
    half = 2 ** (bits - 1)
    fine, coarse = quantizer.decode(torch.arange(2**bits)).split(half)
    assert coarse[1] / fine[1] == 2.0**quantizer.shift
    assert fine[0] == coarse[0] == 0.0 and coarse[-1] == 1.0 and fine[-1] == 2.0**-quantizer.shift
    torch.testing.assert_close(fine, torch.arange(half) * fine[1])
    assert (quantizer.codes(x[:1]) == 2**bits - 1).all() or quantizer.shift == 0
    used = quantizer(x).unique()  # every value has its nearest level, coarse levels up to the split aside
    candidates = torch.cat([fine, coarse[coarse > fine[-1]]])
    nearest = (x[:, None] - candidates).abs().min(1).values
    torch.testing.assert_close((quantizer(x) - x).abs(), nearest, rtol=0, atol=1e-7)
    assert torch.isin(used, candidates).all()


@given(bits=BITS, seed=SEEDS, spread=st.floats(0.1, 30))
@few
def test_twin_gelu_steps_differ_by_a_shift_and_end_at_the_minimum(bits, seed, spread):
    x = torch.nn.functional.gelu(spread * torch.randn(1000, generator=torch.Generator().manual_seed(seed)))
    quantizer = QUANTIZERS["twin_gelu"](bits)
    quantizer.fit(x)
    half = 2 ** (bits - 1)
    levels = quantizer.decode(torch.arange(2**bits))
    fine, coarse = levels[half] - levels[half - 1], levels[half + 1] - levels[half]
    assert coarse / fine == 2.0**quantizer.shift
    assert levels[0] == pytest.approx(GELU_MINIMUM) and levels[half] == 0.0
    assert (levels.diff() > 0).all()
    assert abs(levels[0] - torch.nn.functional.gelu(torch.linspace(-1, 0, 10_001)).min()) < 1e-5
    covering = every_table("twin_gelu", bits, x)[-1]
    assert covering.levels[-1] >= x.max() * 0.999999


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_adalog_of_37_is_log2(bits):
    adalog, log2 = QUANTIZERS["adalog"](bits), QUANTIZERS["log2"](bits)
    levels, boundaries = adalog.tables(torch.full((1, 1), 37.0), torch.ones(1, 1))
    adalog.levels.copy_(levels[0])
    adalog.boundaries.copy_(boundaries[0])
    codes = torch.arange(2**bits)
    kept = codes < 126  # below, levels are zero: too small for normal numbers
    assert torch.equal(adalog.decode(codes)[kept], log2.decode(codes)[kept])
    x = sample(0, 6.0, count=5000)
    assert torch.equal(adalog.codes(x), log2.codes(x))


@given(bits=BITS, seed=SEEDS, power=st.floats(1, 12))
@few
def test_adalog_levels_are_a_shift_of_an_integer(bits, seed, power):
    """scale · 2^-T1 · n / (2^(bits+1) - 2) with n an integer of bits + 1 bits; each within n's rounding of the formula."""
    quantizer = AdaLog(bits, search_scale=True)
    quantizer.fit(sample(seed, power))
    largest = 2 ** (bits + 1) - 2
    numerator = int(quantizer.numerator)
    for code, level in enumerate(quantizer.decode(torch.arange(2**bits)).double()[:-1]):
        shift = code * numerator // 37
        if level == 0:
            assert shift > 100
            continue
        n = level / quantizer.scale.double() * 2.0**shift * largest
        assert n == pytest.approx(round(n.item()), abs=1e-4 * largest)
        assert abs(n / largest - 2 ** -(code * numerator / 37 - shift)) <= 0.5001 / largest
    assert quantizer.decode(torch.tensor(2**bits - 1)) == 0.0


@given(seed=SEEDS, size=st.floats(1e-3, 0.2))
@few
def test_adalog_finds_a_scale_for_values_far_below_one(seed, size):
    x = sample(seed, 1.0, size)
    fixed, free = AdaLog(3), AdaLog(3, search_scale=True)
    fixed.fit(x)
    free.fit(x)
    assert fixed.scale == 1.0 and 0.9 * size < free.scale <= size
    assert (free(x) - x).square().sum() < (fixed(x) - x).square().sum()


@given(bits=BITS, seed=SEEDS, power=st.floats(1, 12))
@few
def test_shifted_log2_levels_are_powers_of_two_less_eta(bits, seed, power):
    x = sample(seed, power)
    quantizer = QUANTIZERS["shifted_log2"](bits)
    quantizer.fit(x)
    exponents = (quantizer.decode(torch.arange(2**bits)).double() + quantizer.eta).log2()
    assert torch.equal(exponents, exponents.round())
    assert exponents[0] == quantizer.eta.double().log2() and exponents[-1] == quantizer.top
    assert quantizer.top == (x.max() + quantizer.eta).log2().round()  # the highest level is the largest value's nearest
    if bits >= 4:  # every exponent has a code, so that rounding is the formula's
        direct = (x.double() + quantizer.eta).log2().round().clamp(max=quantizer.top).exp2() - quantizer.eta
        torch.testing.assert_close(quantizer(x).double(), direct)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"twin_gelu"}))
def test_a_cost_of_the_product_gives_a_better_product(name):
    rng = torch.Generator().manual_seed(0)
    p = (4 * torch.randn(2, 40, 40, generator=rng)).softmax(-1)
    v = torch.randn(2, 40, 16, generator=rng) + 1  # a common part: what matters is that rows keep their sums

    def cost(p_hat: torch.Tensor) -> torch.Tensor:
        return (p_hat @ v - p @ v).square().sum()

    by_value, by_product = QUANTIZERS[name](3), QUANTIZERS[name](3)
    by_value.fit(p)
    by_product.fit(p, cost=cost)
    assert cost(by_product(p)) <= cost(by_value(p))
    assert cost(by_product(p)) == min(cost(quantizer(p)) for quantizer in every_table(name, 3, p.flatten()))
