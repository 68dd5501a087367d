"""What computes gradients does so wherever it is called."""

import pytest
import torch

import vitdfq
from vitdfq.common.gradients import with_gradients

MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_on_inside_and_as_before_outside(mode):
    @with_gradients
    def flags():
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")

    with MODES[mode]():
        assert flags() == (True, False, False)
        assert torch.is_grad_enabled() == (mode == "autocast") == torch.is_autocast_enabled("cpu")
        assert torch.is_inference_mode_enabled() == (mode == "inference_mode")


@pytest.mark.parametrize("mode", MODES)
def test_all_stages_give_the_same_student_in_any_mode(tiny_vit, mode, tmp_path):
    def student():
        teacher = vitdfq.load_teacher(tiny_vit)
        prepared = vitdfq.prepare(teacher)
        images = vitdfq.synthesize(teacher, method="psaq", num_images=2, steps=2)
        noise = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        steps = ["observe", {"reconstruct": {"iterations": 2}}, {"distill": {"iterations": 2}}]
        quantized = vitdfq.quantize(prepared, bits="w4a4")
        return vitdfq.calibrate(quantized, prepared, torch.cat([images, noise]), steps=steps)

    expected = student().state_dict()
    with MODES[mode]():
        made = student()
        loaded = vitdfq.load(vitdfq.save(made, tmp_path))
    for model in (made, loaded):
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in expected.items())
        assert not any(value.is_inference() for value in model.state_dict().values())
