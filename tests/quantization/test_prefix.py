import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vitdfq
from vitdfq.models import prefix_tokens
from vitdfq.quantization.modules import named_sites
from vitdfq.quantization.quantizers.prefix import PrefixUniform
from vitdfq.quantization.quantizers.uniform import Uniform


def tokens(seed=0, prefix=2):
    x = torch.randn(3, prefix + 6, 33, generator=torch.Generator().manual_seed(seed)) + 0.3
    x[:, :prefix] *= 20
    return x


@given(st.integers(2, 8), st.booleans(), st.integers(1, 4), st.integers(0, 2**31))
@settings(deadline=None, max_examples=20)
def test_each_first_token_and_all_patches_have_the_grid_of_their_own_values(bits, symmetric, prefix, seed):
    x, importance = tokens(seed, prefix), torch.rand(33) + 0.1
    quantizer = PrefixUniform(bits, prefix=prefix, symmetric=symmetric)
    quantizer.fit(x, importance=importance)
    for part in [slice(index, index + 1) for index in range(prefix)] + [slice(prefix, None)]:
        alone = Uniform(bits, symmetric=symmetric)
        alone.fit(x[:, part], importance=importance)
        assert torch.equal(quantizer(x)[:, part], alone(x[:, part]))
        assert torch.equal(quantizer.codes(x)[:, part], alone.codes(x[:, part]))
    assert torch.equal(quantizer.decode(quantizer.codes(x)), quantizer(x))
    quantizer.check()


def test_patches_gain_from_a_scale_without_outliers():
    x = tokens()
    together, apart = Uniform(4), PrefixUniform(4, prefix=2)
    together.fit(x)
    apart.fit(x)
    errors = [(quantizer(x) - x)[:, 2:].square().mean() for quantizer in (together, apart)]
    assert errors[1] < errors[0] / 20


def test_scales_take_gradients_and_values_pass_straight_through():
    x = tokens().requires_grad_()
    quantizer = PrefixUniform(4, prefix=2)
    quantizer.fit(x)
    quantizer.scale = torch.nn.Parameter(quantizer.scale)
    factors = torch.rand(x.shape) + 1
    (quantizer(x) * factors).sum().backward()
    assert quantizer.scale.grad.shape == (3, 1) and (quantizer.scale.grad != 0).all()
    codes = quantizer.codes(x)
    inside = (codes > 0) & (codes < 15)
    assert torch.equal(x.grad[inside], factors[inside])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.ones(3, 2, 5), "needs more tokens"),
        (torch.ones(5), "needs more tokens"),
        (torch.full((3, 4, 5), float("nan")), "NaN"),
    ],
)
def test_values_without_patches_and_broken_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PrefixUniform(4, prefix=2).fit(values)


def test_guided_observer_needs_importance():
    with pytest.raises(ValueError, match="needs importance="):
        PrefixUniform(4, prefix=1, observer="output_error").fit(tokens())


def test_layers_of_the_blocks_have_it_where_tokens_stand_in_front(teacher):
    student = vitdfq.quantize(teacher, activation={"per_prefix_token": True})
    counts = prefix_tokens(teacher)
    for name, site in named_sites(student).items():
        for quantizer in site.operand_quantizers.values():
            assert isinstance(quantizer, PrefixUniform) == (name in counts)
            assert getattr(quantizer, "prefix", None) == counts.get(name)
    in_blocks = {
        name for name, part in teacher.named_modules() if name.startswith("blocks.") and isinstance(part, torch.nn.Linear)
    }
    assert set(counts) == (in_blocks if getattr(teacher, "num_prefix_tokens", 0) else set())
