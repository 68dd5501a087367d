"""A student that is not calibrated does not return NaN without a word."""

import copy

import pytest
import torch

from vitdfq.calibration import calibrate
from vitdfq.calibration.observe import observe
from vitdfq.checkpoint import load, save
from vitdfq.quantization import QUANTIZERS, quantize
from vitdfq.quantization.fitted import is_fitted


def test_a_pass_before_calibration_names_the_first_quantizer(teacher, images):
    student = quantize(teacher)
    for model in (student, copy.deepcopy(student), student.eval()):
        with pytest.raises(ValueError, match=r"^this student is not calibrated: .*calibrate\(student, teacher, images\)"):
            model(images)


def test_the_check_goes_with_calibration(tiny_vit, images, tmp_path):
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    by_hand = quantize(tiny_vit)
    observe(by_hand, tiny_vit, images)
    for model in (student, by_hand, load(save(student, tmp_path))):
        assert is_fitted(model) and not model._forward_hooks
        assert model(images).isfinite().all()


def test_a_calibration_that_was_interrupted_is_still_noticed(tiny_vit, images):
    student = quantize(tiny_vit)
    with pytest.raises(ValueError, match="steps lack observe"):
        calibrate(student, tiny_vit, images, steps=["center"])
    with pytest.raises(ValueError, match="this student is not calibrated"):
        student(images)


@pytest.mark.parametrize("name", sorted(QUANTIZERS))
def test_every_quantizer_gives_nan_until_it_is_fitted(name):
    quantizer = QUANTIZERS[name](4)
    assert quantizer(torch.rand(2, 3)).isnan().all() == quantizer.needs_fit
