"""A model of the wrong kind is refused in one line; records are no aliases of what the caller holds."""

import pytest
import timm
from tiny import TINY

from vitdfq.calibration import calibrate
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize


def refused(message, call, *args, **kwargs):
    with pytest.raises(ValueError) as caught:
        call(*args, **kwargs)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize("verb", [quantize, prepare])
def test_a_model_that_was_not_loaded(verb):
    name, kwargs = TINY["vit"]
    refused(f"{verb.__name__} takes what load_teacher returned; this VisionTransformer", verb, timm.create_model(name, **kwargs))


@pytest.mark.parametrize("verb", [quantize, prepare])
def test_a_student_again(tiny_vit, verb):
    refused(f"{verb.__name__} takes a float model; this VisionTransformer is quantized already", verb, quantize(tiny_vit))


def test_calibrating_a_teacher(tiny_vit, images):
    refused("calibrate takes what quantize returned; this VisionTransformer", calibrate, tiny_vit, tiny_vit, images)


def test_steps_of_prepare_that_are_text(tiny_vit):
    refused("steps is 'fold_layer_scale'; expected a list such as", prepare, tiny_vit, steps="fold_layer_scale")


def test_records_are_copies(tiny_vit):
    overrides, weight = {"head": {"weight": {"bits": 6}}}, {"bits": 5}
    student = quantize(tiny_vit, weight=weight, overrides=overrides)
    overrides["head"]["weight"]["bits"], weight["bits"] = 3, 2
    assert student.vitdfq["quantize"]["overrides"] == {"head": {"weight": {"bits": 6}}}
    assert student.vitdfq["quantize"]["weight"] == {"bits": 5}
