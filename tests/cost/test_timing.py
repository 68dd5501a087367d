"""Timings and memory of short runs."""

import pytest
import torch
from tiny import make_tiny

from vitdfq.calibration import distill
from vitdfq.cost import timing
from vitdfq.quantization import quantize


def test_the_median_leaves_out_the_first_call(monkeypatch):
    calls, seconds = [], iter([1.0, 9.0, 2.0])

    def timed(run):
        run()
        return next(seconds)

    monkeypatch.setattr(timing, "timed", timed)
    assert timing.median_seconds(lambda: calls.append(1)) == 2.0
    assert len(calls) == 1 + 3


def test_one_call_is_timed_once():
    calls = []
    assert timing.timed(lambda: calls.append(1)) > 0
    assert len(calls) == 1


@pytest.mark.parametrize(("kind", "values"), [("vit", 17 * 128), ("swin", 64 * 4 * 16 * 4)])
def test_the_largest_output_is_that_of_one_image(kind, values):
    """ViT: the MLP, 4 x 32 channels on 17 tokens. Swin: the MLP of the first stage, 4 x 16 channels on 256 tokens."""
    assert timing.largest_output(make_tiny(kind)) == values


@pytest.mark.parametrize(("precision", "dtype"), [("float32", None), ("bfloat16", torch.bfloat16)])
def test_a_timed_training_step_has_the_loss_and_the_precision_of_distill(tiny_vit, monkeypatch, precision, dtype):
    images, dtypes, stream_distance = timing.noise_images(tiny_vit, 2), [], distill.stream_distance

    def watched(*arguments):
        dtypes.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
        return stream_distance(*arguments)

    monkeypatch.setattr("vitdfq.calibration.distill.stream_distance", watched)
    student = quantize(tiny_vit)
    timing.fit_quantizers(student, tiny_vit, images)
    assert timing.training_cost(student, tiny_vit, images, precision) > 0
    assert dtypes and set(dtypes) == {dtype}
