import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitdfq.quantization.functional import choose_qparams, dequantize_affine, fake_quantize, quantize_affine


def test_a_grid_by_hand():
    scale, zero_point = choose_qparams(torch.tensor(-1.0), torch.tensor(2.0), bits=2, symmetric=False)
    assert (scale.item(), zero_point.item()) == (1.0, 1.0)
    x = torch.tensor([-9.0, -1.0, -0.4, 0.5, 0.6, 1.5, 2.0, 9.0])
    assert quantize_affine(x, scale, zero_point, 2).tolist() == [0, 0, 1, 1, 2, 3, 3, 3]  # half to even
    assert fake_quantize(x, scale, zero_point, 2).tolist() == [-1, -1, 0, 0, 1, 2, 2, 2]


def test_range_is_widened_to_hold_zero():
    scale, zero_point = choose_qparams(torch.tensor(3.0), torch.tensor(15.0), bits=4, symmetric=False)
    assert (scale.item(), zero_point.item()) == (1.0, 0.0)


def test_symmetric_middle_code_is_zero():
    scale, zero_point = choose_qparams(torch.tensor(-3.0), torch.tensor(7.5), bits=4, symmetric=True)
    assert (scale.item(), zero_point.item()) == (1.0, 8.0)
    assert dequantize_affine(torch.tensor(8.0), scale, zero_point) == 0


def test_gradients_are_those_of_lsq():
    x = torch.tensor([0.3, 9.0, -9.0], requires_grad=True)
    scale = torch.tensor(1.0, requires_grad=True)
    fake_quantize(x, scale, torch.tensor(4.0), bits=3).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0, 0.0]
    torch.testing.assert_close(scale.grad, torch.tensor((0.0 - 0.3) + 3.0 - 4.0))


@given(st.integers(2, 8), st.integers(0, 2**31), st.sampled_from([(), (6, 1), (6, 50)]))
@settings(deadline=None, max_examples=25)
def test_gradients_follow_the_formula(bits, seed, shape):
    rng = torch.Generator().manual_seed(seed)
    x = (torch.randn(6, 50, generator=rng) * 5).requires_grad_()
    scale = (torch.rand(shape, generator=rng) + 0.1).requires_grad_()
    zero_point = torch.randint(0, 2**bits, shape, generator=rng).float()
    upstream = torch.randn(6, 50, generator=rng)
    fake_quantize(x, scale, zero_point, bits).backward(upstream)
    steps = (x / scale).detach()
    low, high = -zero_point, 2**bits - 1 - zero_point
    below, above = steps.round() < low, steps.round() > high
    slope = torch.where(below, low, torch.where(above, high, steps.round() - steps))
    torch.testing.assert_close(x.grad, upstream.masked_fill(below | above, 0.0))
    torch.testing.assert_close(scale.grad, (slope * upstream).sum_to_size(shape))


@pytest.mark.parametrize("learns", ["x", "scale"])
def test_only_inputs_that_require_it_get_a_gradient(learns):
    leaves = {"x": torch.linspace(-2, 2, 9), "scale": torch.tensor(0.3)}
    leaves[learns].requires_grad_()
    fake_quantize(leaves["x"], leaves["scale"], torch.tensor(4.0), 3).sum().backward()
    assert [name for name, leaf in leaves.items() if leaf.grad is not None] == [learns]


def test_gradient_mode_does_not_change_a_bit():
    x, scale, zero_point = torch.randn(1000, generator=torch.Generator().manual_seed(0)), torch.tensor(0.1), torch.tensor(7.0)
    assert torch.equal(fake_quantize(x.clone().requires_grad_(), scale, zero_point, 4), fake_quantize(x, scale, zero_point, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (4, 1)])
@pytest.mark.parametrize("grad", [False, True])
def test_16_bit_values_are_rounded_in_float32(dtype, shape, grad):
    x = (torch.randn(4, 500, generator=torch.Generator().manual_seed(0)) * 20).to(dtype)
    scale, zero_point = torch.full(shape, 0.137), torch.full(shape, 128.0)
    expected = fake_quantize(x.float(), scale, zero_point, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = fake_quantize(x.clone().requires_grad_(grad), scale, zero_point, 8)
    assert found.dtype == dtype and torch.equal(found, expected.to(dtype))
    codes = quantize_affine(x, scale, zero_point, 8)
    assert torch.equal(dequantize_affine(codes, scale, zero_point), expected)


def test_16_bit_values_give_the_scale_its_float32_gradient():
    x, zero_point = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).bfloat16(), torch.tensor(8.0)
    gradients = []
    for values in (x.clone().requires_grad_(), x.float().requires_grad_()):
        scale = torch.tensor(0.1, requires_grad=True)
        fake_quantize(values, scale, zero_point, 4).sum().backward()
        assert values.grad.dtype == values.dtype
        gradients.append(scale.grad)
    assert torch.equal(*gradients)


def test_one_byte_per_value_is_saved_for_the_backward_pass():
    x = torch.linspace(-1, 1, 1000, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.nbytes), lambda _: None):
        fake_quantize(x, torch.tensor(0.1), torch.tensor(8.0), 4)
    assert sum(kept) == 1000
