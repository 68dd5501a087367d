"""observe(): what decides among ranges."""

import pytest

from vitdfq.calibration import calibrate
from vitdfq.quantization import quantize


@pytest.mark.parametrize("measure", ["values", "outputs"])
def test_activations_whose_observer_asks_for_what_matters(teacher, images, measure):
    student = quantize(teacher, bits="w6a6", activation={"observer": "hessian"})
    calibrate(student, teacher, images, steps=[{"observe": {"measure": measure}}])
    wanted = teacher(images)
    assert (student(images) - wanted).square().mean() < 0.1 * wanted.square().mean()
