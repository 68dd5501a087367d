import torch

from vitdfq.quantization.functional import choose_qparams, dequantize_affine, fake_quantize, quantize_affine


def test_known_grid():
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
