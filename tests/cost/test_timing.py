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


def test_forms_take_turns_and_the_least_times_after_the_first_turn_count(monkeypatch):
    """A clock that only the forms move: their seconds by turn, for a batch of two images; processor time is half of it."""
    seconds = {"a": iter([1.0, 6.0, 4.0]), "b": iter([2.0, 8.0, 10.0])}
    calls, now = [], 0.0

    def form(name):
        def run(images):
            nonlocal now
            calls.append(name)
            now += next(seconds[name])

        return run

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    monkeypatch.setattr(timing.time, "process_time", lambda: now / 2)
    least = timing.least_times({name: form(name) for name in seconds}, torch.zeros(2, 3, 4, 4), turns=2)
    assert calls == ["a", "b"] * 3
    assert least == {"a": timing.ImageTime(2000, 1000), "b": timing.ImageTime(4000, 2000)}


def test_forms_in_bfloat16_leave_the_model_as_it_is(tiny_vit):
    images = timing.noise_images(tiny_vit, 2)
    for form in (timing.autocast_bfloat16, timing.in_bfloat16):
        with torch.no_grad():
            assert form(tiny_vit)(images).dtype == torch.bfloat16
        assert tiny_vit(images).dtype == torch.float32


def test_the_processor_has_a_name():
    assert timing.processor_name()


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
