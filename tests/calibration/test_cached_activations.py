"""Cached activations wait in host memory, and no more than a batch of them is anywhere else."""

import pytest
import torch

from vitdfq.calibration import STEPS, calibrate
from vitdfq.calibration.cached_activations import forward_in_batches
from vitdfq.quantization import quantize
from vitdfq.reports.sqnr import AT_ONCE, unit_sqnr

CPU = torch.device("cpu")


def widths(model, run) -> list[int]:
    """How many images the first block sees in each pass of `run()`."""
    seen: list[int] = []
    hook = model.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    run()
    hook.remove()
    return seen


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_forwarded_in_order_in_batches(batch_size):
    stream, seen = torch.arange(24.0).view(8, 3), []

    def forward(x):
        seen.append(len(x))
        return x[:, :2] + 1

    assert torch.equal(forward_in_batches(forward, stream, CPU, batch_size), stream[:, :2] + 1)
    assert sum(seen) == 8 and max(seen) == min(batch_size, 8)


def test_forwarded_keeps_how_memory_is_laid_out():
    stream = torch.randn(8, 3, 5)
    assert forward_in_batches(lambda x: x.transpose(1, 2), stream, CPU, 3).stride() == stream.transpose(1, 2).stride()


@pytest.mark.parametrize(("step", "options"), [("gptq", {}), ("reconstruct", {"iterations": 1, "guarded": False})])
def test_a_pass_has_no_more_images_than_a_batch(tiny_vit, images, step, options):
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    models = [student, tiny_vit] if step == "reconstruct" else [student]
    apply, step_options = STEPS[step].apply, STEPS[step].options(batch_size=3, **options)
    for model in models:
        assert max(widths(model, lambda: apply(student, tiny_vit, images, step_options))) == 3


def test_the_error_of_units_is_that_of_all_images_at_once(tiny_vit, images, monkeypatch):
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    at_once = unit_sqnr(student, tiny_vit, images)
    assert len(images) <= AT_ONCE
    monkeypatch.setattr("vitdfq.reports.sqnr.AT_ONCE", 3)
    assert max(widths(student, lambda: unit_sqnr(student, tiny_vit, images))) == 3
    assert unit_sqnr(student, tiny_vit, images) == pytest.approx(at_once, abs=0.011)
