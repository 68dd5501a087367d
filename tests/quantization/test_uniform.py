"""The granularities of the uniform quantizer, and the measures of `fit`."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitdfq.quantization.functional import choose_qparams
from vitdfq.quantization.observers import OBSERVERS
from vitdfq.quantization.quantizers.uniform import Uniform, weight_shape

NAMES = sorted(OBSERVERS)
CASES = {  # granularity -> (options, values)
    "tensor": ({}, (2, 3, 5, 16)),
    "head": ({"shape": (3, 1, 1)}, (2, 3, 5, 16)),
    "channel": ({"shape": (12, 1)}, (12, 32)),
    "group": ({"shape": (12, 4), "group_size": 8}, (12, 32)),
}


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) ** 3 + 0.2


def guidance(granularity, x):
    """What observer "output_error" insists on."""
    columns = x.shape[-1]
    inputs = values(4 * columns, columns, seed=9)
    return {"gram": inputs.T @ inputs} if granularity in ("channel", "group") else {"importance": inputs.square().mean(0)}


def fitted(granularity, bits, x, symmetric=False, observer="mse"):
    quantizer = Uniform(bits, symmetric=symmetric, observer=observer, **CASES[granularity][0])
    quantizer.fit(x, **(guidance(granularity, x) if observer == "output_error" else {}))
    return quantizer


@pytest.mark.parametrize("observer", NAMES)
@pytest.mark.parametrize("granularity", CASES)
@given(st.integers(2, 8), st.booleans(), st.integers(0, 2**31), st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=5)
def test_every_grid_is_a_grid(granularity, observer, bits, symmetric, seed, size):
    x = values(*CASES[granularity][1], seed=seed) * size
    quantizer = fitted(granularity, bits, x, symmetric, observer)
    codes, once = quantizer.codes(x), quantizer(x)
    assert codes.shape == once.shape == x.shape and codes.dtype == torch.int32
    assert codes.min() >= 0 and codes.max() <= 2**bits - 1
    assert torch.equal(quantizer.decode(codes), once)
    assert torch.equal(quantizer(once), once)
    assert torch.equal(quantizer(torch.zeros_like(x)), torch.zeros_like(x))
    step = quantizer.scale if granularity != "group" else quantizer.scale.repeat_interleave(8, 1)
    unclipped = (codes > 0) & (codes < 2**bits - 1)
    assert ((once - x).abs() <= step * 0.5001)[unclipped].all()
    assert once.unique().numel() <= 2**bits * quantizer.scale.numel()


@pytest.mark.parametrize("observer", NAMES)
@pytest.mark.parametrize("granularity", CASES)
@pytest.mark.parametrize("constant", [0.0, 0.25, -3.0])
def test_constants_are_kept(granularity, observer, constant):
    x = torch.full(CASES[granularity][1], constant)
    torch.testing.assert_close(fitted(granularity, 4, x, observer=observer)(x), x)


@pytest.mark.parametrize("granularity", CASES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_values_are_refused(granularity, bad):
    x = values(*CASES[granularity][1])
    x.view(-1)[7] = bad
    with pytest.raises(ValueError, match="NaN"):
        fitted(granularity, 4, x)


@pytest.mark.parametrize("granularity", CASES)
def test_state_round_trip(granularity):
    x = values(*CASES[granularity][1])
    quantizer, other = fitted(granularity, 4, x), Uniform(4, **CASES[granularity][0])
    other.load_state_dict(quantizer.state_dict(), strict=True)
    assert torch.equal(other.decode(quantizer.codes(x)), quantizer(x))


def test_heads_are_independent():
    x = values(2, 3, 5, 16) * torch.tensor([0.01, 1.0, 100.0])[:, None, None]
    quantizer = fitted("head", 4, x)
    for head in range(3):
        alone = Uniform(4, shape=(1, 1, 1))
        alone.fit(x[:, head : head + 1])
        assert torch.equal(alone.scale[0], quantizer.scale[head])
        assert torch.equal(alone(x[:, head : head + 1]), quantizer(x)[:, head : head + 1])


def test_heads_that_are_alike_are_fitted_like_the_tensor():
    x = values(4, 1, 50, 16).repeat(1, 2, 1, 1)
    heads, tensor = Uniform(4, shape=(2, 1, 1)), Uniform(4)
    for quantizer in (heads, tensor):
        quantizer.fit(x)
    errors = [(quantizer(x) - x).square().sum() for quantizer in (heads, tensor)]
    torch.testing.assert_close(*errors, rtol=0.01, atol=0)


@pytest.mark.parametrize("gram", [False, True])
def test_one_group_is_a_channel(gram):
    x = values(12, 32)
    options = guidance("channel", x) if gram else {}
    group, channel = Uniform(4, shape=weight_shape(12, 32, 32), group_size=32), Uniform(4, shape=weight_shape(12, 32))
    for quantizer in (group, channel):
        quantizer.fit(x, **options)
    assert torch.equal(group.scale, channel.scale) and torch.equal(group(x), channel(x))


def test_groups_are_independent_and_use_the_gram_of_their_inputs():
    x, inputs = values(12, 32), values(100, 32, seed=5)
    gram = inputs.T @ inputs
    for options in ({}, {"gram": gram}):
        quantizer = Uniform(4, shape=(12, 4), group_size=8)
        quantizer.fit(x, **options)
        for group in range(4):
            part = slice(8 * group, 8 * group + 8)
            alone = Uniform(4, shape=(12, 1))
            alone.fit(x[:, part].contiguous(), **({"gram": gram[part, part]} if options else {}))
            assert torch.equal(alone.scale[:, 0], quantizer.scale[:, group])
            assert torch.equal(alone(x[:, part]), quantizer(x)[:, part])


def test_min_max_is_min_max():
    x = values(500)
    quantizer = fitted("tensor", 4, x, observer="min_max")
    assert torch.equal(quantizer.scale, choose_qparams(x.amin(), x.amax(), 4, False)[0])


def outlier():
    return torch.cat([torch.randn(20_000, generator=torch.Generator().manual_seed(0)), torch.tensor([60.0])])


def test_percentile_has_less_error_than_min_max_when_there_is_an_outlier():
    x = outlier()
    clipped, whole = (fitted("tensor", 4, x, observer=name) for name in ("percentile", "min_max"))
    assert (clipped(x) - x).square().sum() < 0.5 * (whole(x) - x).square().sum()


def test_cost_chooses_the_range():
    x = outlier()
    plain, guided = Uniform(4), Uniform(4)
    plain.fit(x)
    guided.fit(x, cost=lambda quantized: (quantized - x)[-1].abs())  # the outlier alone matters
    assert plain(x)[-1] < 30
    assert guided(x)[-1] == pytest.approx(60, abs=0.5)


def test_the_observer_of_output_errors_requires_a_measure():
    with pytest.raises(ValueError, match="needs gram"):
        Uniform(4, observer="output_error").fit(values(50))


@pytest.mark.parametrize(
    ("granularity", "options"),
    [
        ("tensor", {"gram": torch.eye(16)}),
        ("head", {"gram": torch.eye(16)}),
        ("head", {"cost": torch.sum}),
        ("channel", {"cost": torch.sum}),
        ("group", {"importance": torch.ones(32)}),
    ],
)
def test_options_that_do_not_go_with_the_scale_are_refused(granularity, options):
    quantizer = Uniform(4, **CASES[granularity][0])
    with pytest.raises(ValueError, match=f"does not go with a scale per {granularity}"):
        quantizer.fit(values(*CASES[granularity][1]), **options)


@pytest.mark.parametrize(
    ("granularity", "shape"),
    [("head", (2, 4, 5, 16)), ("head", (3, 16)), ("channel", (11, 32)), ("channel", (12, 2, 16)), ("group", (12, 40))],
)
def test_values_of_another_shape_are_refused(granularity, shape):
    with pytest.raises(ValueError, match="values have shape"):
        fitted(granularity, 4, values(*shape))


@pytest.mark.parametrize("granularity", ["channel", "group"])
@pytest.mark.parametrize("size", [31, 64])
def test_gram_of_another_size_is_refused(granularity, size):
    with pytest.raises(ValueError, match="gram has shape"):
        Uniform(4, **CASES[granularity][0]).fit(values(12, 32), gram=torch.eye(size))


def test_no_values_are_refused():
    with pytest.raises(ValueError, match="no values"):
        Uniform(4).fit(torch.zeros(0))


@pytest.mark.parametrize("options", [{"shape": (12, 4)}, {"shape": (3,)}, {"group_size": 8}, {"shape": (2, 1), "group_size": 0}])
def test_shapes_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match="shape"):
        Uniform(4, **options)


def test_group_size_must_divide_the_inputs():
    assert weight_shape(12, 32, 8) == (12, 4)
    with pytest.raises(ValueError, match="does not divide the 36 inputs"):
        weight_shape(12, 36, 8)


def test_misspelt_observer_is_answered_with_the_choices():
    with pytest.raises(ValueError, match="min_max"):
        Uniform(4, observer="minmax")


@pytest.mark.parametrize("granularity", CASES)
def test_scale_may_learn(granularity):
    x = values(*CASES[granularity][1])
    quantizer = fitted(granularity, 4, x)
    del quantizer.scale
    quantizer.scale = torch.nn.Parameter(fitted(granularity, 4, x).scale)
    quantizer(x).square().sum().backward()
    assert quantizer.scale.grad.shape == quantizer.scale.shape and quantizer.scale.grad.abs().sum() > 0
