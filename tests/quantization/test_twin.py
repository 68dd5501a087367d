"""The twin grid for GELU: the values that it refuses, and `center`, which does not shift its input."""

import pytest
import torch
from torch.nn import functional as F

from vitdfq.calibration import calibrate
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize
from vitdfq.quantization.quantizers.twin import TwinGelu


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_outputs_of_gelu_fit(approximate):
    TwinGelu(4).fit(F.gelu(torch.linspace(-5, 5, 1001), approximate=approximate))


@pytest.mark.parametrize("values", [F.silu(torch.linspace(-5, 5, 1001)), torch.tensor([-1.0, 0.0, 2.0])])
def test_values_below_the_minimum_of_gelu_are_refused(values):
    with pytest.raises(ValueError, match=r"twin_gelu: values down to -.* are no output of GELU, .*; choices: uniform"):
        TwinGelu(4).fit(values)


def test_a_rotated_mlp_is_refused(tiny_vit, images):
    rotated = prepare(tiny_vit, steps=["rotate_residual", "rotate_mlp"])
    with pytest.raises(ValueError, match="are no output of GELU"):
        calibrate(quantize(rotated, policy="ptq4vit"), rotated, images, steps=["observe"])


def test_center_shifts_no_input_with_the_gelu_grid(tiny_vit, images):
    student = quantize(tiny_vit, policy="ptq4vit")
    calibrate(student, tiny_vit, images, steps=[{"center": {"guarded": False}}, "observe"])
    mlp = student.blocks[0].mlp
    assert mlp.fc1.input_shift.any() and not mlp.fc2.input_shift.any()
