"""Cached activations are in host memory; no forward pass has more images than a batch."""

import pytest
import torch
from passes import batch_sizes

from vitdfq.calibration import STEPS, calibrate
from vitdfq.calibration.cached_activations import forward_in_batches
from vitdfq.quantization import quantize

CPU = torch.device("cpu")


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_batches_are_forwarded_in_order(batch_size):
    activations, sizes = torch.arange(24.0).view(8, 3), []

    def forward(x):
        sizes.append(len(x))
        return x[:, :2] + 1

    assert torch.equal(forward_in_batches(forward, activations, CPU, batch_size), activations[:, :2] + 1)
    assert sum(sizes) == 8 and max(sizes) == min(batch_size, 8)


def test_the_memory_layout_of_the_output_stays():
    activations = torch.randn(8, 3, 5)
    result = forward_in_batches(lambda x: x.transpose(1, 2), activations, CPU, 3)
    assert result.stride() == activations.transpose(1, 2).stride()


@pytest.mark.parametrize(("step", "options"), [("gptq", {}), ("reconstruct", {"iterations": 1, "guarded": False})])
def test_a_pass_has_no_more_images_than_a_batch(tiny_vit, images, step, options):
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    models = [student, tiny_vit] if step == "reconstruct" else [student]
    apply, step_options = STEPS[step].apply, STEPS[step].options(batch_size=3, **options)
    for model in models:
        assert max(batch_sizes(model, lambda: apply(student, tiny_vit, images, step_options))) == 3
