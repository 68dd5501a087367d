"""observe(): the measure that ranges are chosen by, and the progress."""

import pytest

from vitdfq.calibration import calibrate
from vitdfq.calibration.observe import count_fits
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
