"""observe(): what decides among ranges."""

import pytest

from vitdfq.calibration import calibrate
from vitdfq.calibration.observe import count_fits
from vitdfq.quantization import quantize


@pytest.mark.parametrize("measure", ["values", "outputs"])
def test_activations_whose_observer_asks_for_what_matters(teacher, images, measure):
    student = quantize(teacher, bits="w6a6", activation={"observer": "output_error"})
    calibrate(student, teacher, images, steps=[{"observe": {"measure": measure}}])
    wanted = teacher(images)
    assert (student(images) - wanted).square().mean() < 0.1 * wanted.square().mean()


def test_center_and_observe_say_how_far_they_are(teacher, images, capsys):
    """Every quantizer that is fitted counts: none is left when the last line is printed, and none is counted twice."""
    student = quantize(teacher)
    calibrate(student, teacher, images, steps=["center", "observe"])
    fits, said = count_fits(student), capsys.readouterr().err
    assert said.count(f"observe: {fits}/{fits} ") == 1
    assert said.count(f"center: {3 + 2 * fits}/{3 + 2 * fits} ") == 1
