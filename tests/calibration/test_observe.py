"""observe(): the measure that ranges are chosen by, and the progress."""

import pytest
import torch

import vitdfq
from vitdfq.calibration import calibrate
from vitdfq.calibration.observe import ObserveOptions, count_fits
from vitdfq.quantization import quantize
from vitdfq.runtime.run import Run


@pytest.mark.parametrize("measure", ["values", "outputs"])
def test_guided_observers_of_activations_work_with_both_measures(teacher, images, measure):
    student = quantize(teacher, bits="w6a6", activation={"observer": "output_error"})
    calibrate(student, teacher, images, steps=[{"observe": {"measure": measure}}])
    wanted = teacher(images)
    assert (student(images) - wanted).square().mean() < 0.1 * wanted.square().mean()


class CountingRun(Run):
    """Records every progress that is opened, by title."""

    def __init__(self):
        self.opened = {}

    def progress(self, title, total):
        self.opened[title] = super().progress(title, total)
        return self.opened[title]


def test_the_progress_of_center_and_observe_ends_at_its_total(teacher, images):
    """Each fitted quantizer counts once."""
    student, run = quantize(teacher), CountingRun()
    calibrate(student, teacher, images, steps=["center", "observe"], run=run)
    fits = count_fits(student)
    assert {title: (bar.done, bar.total) for title, bar in run.opened.items()} == {
        "center": (3 + 2 * fits, 3 + 2 * fits),
        "observe": (fits, fits),
    }


def test_ranges_of_eight_bits_cover_other_images_than_those_given(tiny_vit):
    flat = torch.full((8, 3, 32, 32), 0.01) + 0.001 * torch.randn(8, 3, 32, 32)
    test = vitdfq.synthesize(tiny_vit, method="dead_leaves", num_images=16, seed=9)

    def error(bits, **options):
        student = vitdfq.calibrate(vitdfq.quantize(tiny_vit, bits=bits), tiny_vit, flat, steps=[{"observe": options}])
        return (student(test) - tiny_vit(test)).square().mean().item()

    assert error("w8a8") < error("w8a8", num_cover=0) / 10
    assert error("w4a4") == error("w4a4", num_cover=0)  # few bits would be spent on a range that they cannot resolve


def test_a_negative_number_of_images_to_cover_is_refused():
    with pytest.raises(ValueError, match="num_cover must be at least 0, got -1"):
        ObserveOptions(num_cover=-1)
