"""End-to-end distillation, and its validation on held-out images."""

import pytest
import torch
from tiny import FEATURE_KINDS, TO_CALIBRATE, make_tiny

from vitdfq.calibration import calibrate
from vitdfq.calibration.held_out import HeldOutValidation, hold_out, worst_ratio
from vitdfq.quantization import quantize
from vitdfq.synthesis import synthesize
from vitdfq.training.output_distance import output_distance, run_to_outputs


def dead_leaves(teacher, count=32, seed=0):
    return synthesize(teacher, method="dead_leaves", num_images=count, seed=seed)


@pytest.mark.parametrize("kind", [*TO_CALIBRATE, *FEATURE_KINDS])
def test_the_error_falls_on_images_that_are_not_trained_on(kind):
    teacher = make_tiny(kind)
    images, others = dead_leaves(teacher), dead_leaves(teacher, 16, seed=9)
    target = run_to_outputs(teacher, others)

    def error(steps):
        student = calibrate(quantize(teacher, bits="w3a3"), teacher, images, steps=steps)
        return output_distance(run_to_outputs(student, others), target).item()

    assert error(["observe", {"distill": {"iterations": 60, "lr": 2e-2, "scale_lr": 1e-2}}]) < 0.9 * error(["observe"])


@pytest.mark.parametrize("step", ["distill", "reconstruct"])
def test_training_that_increases_the_held_out_error_is_undone(tiny_vit, images, step):
    observed = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    trained = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe", {step: {"iterations": 8, "lr": 300.0}}])
    assert torch.equal(trained(images), observed(images))


def test_the_set_with_the_largest_ratio_decides(tiny_vit):
    """A student that overfits the given images has a smaller error on them, and a larger one on procedural images."""
    validation = HeldOutValidation(tiny_vit, torch.zeros(4, 3, 32, 32), seed=0)
    student = calibrate(quantize(tiny_vit, bits="w4a4"), tiny_vit, dead_leaves(tiny_vit), steps=["observe"])
    before = validation.errors(student)
    assert len(before) == 2 and worst_ratio(before, before) == 1
    assert worst_ratio([0.1 * before[0], 1.2 * before[1]], before) == pytest.approx(1.2)


def test_held_out_images_are_not_trained_on():
    images = torch.arange(200.0)[:, None]
    for count, expected in ((8, 0), (16, 2), (64, 8), (200, 16)):
        training, held_out = hold_out(images[:count])
        assert len(held_out) == expected and torch.equal(torch.cat([training, held_out]), images[:count])


def test_scales_are_buffers_after_the_training(tiny_vit, images):
    student = quantize(tiny_vit)
    names = set(dict(student.named_buffers()))
    calibrate(student, tiny_vit, images, steps=["observe", {"distill": {"iterations": 2}}])
    assert set(dict(student.named_buffers())) == names
