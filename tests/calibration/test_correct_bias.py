"""correct_bias: the mean error of each output feature becomes zero, layer by layer in order of execution."""

from copy import deepcopy

import pytest
import torch
from tiny import make_student_float, make_tiny
from torch import nn

from vitdfq.calibration import calibrate
from vitdfq.calibration.correct_bias import CorrectBiasOptions, correct_bias
from vitdfq.calibration.observe import observe
from vitdfq.models import norm_readers, projections, record
from vitdfq.quantization import quantize
from vitdfq.quantization.fitted import allow
from vitdfq.quantization.modules import QuantConv2d, QuantLinear


def observed(teacher, images, bits="w4a4"):
    student = quantize(teacher, bits=bits)
    observe(student, teacher, images)
    return student


def in_float64(teacher, images):
    """(teacher, images) in which no rounding of sums, which differs by processor, moves a value over a step of the grid."""
    return deepcopy(teacher).double(), images.double()


def mean_errors(student, teacher, images):
    """Mean of (teacher - student) per output feature of every layer, keys and values left out: name -> (F,)."""
    names = [name for name, part in student.named_modules() if isinstance(part, QuantLinear | QuantConv2d)]
    with record(teacher, names) as floats, record(student, names) as quantized:
        teacher(images), student(images)
    errors = {}
    for name in names:
        error = floats[name] - quantized[name]
        features = 1 if isinstance(student.get_submodule(name), QuantConv2d) else error.ndim - 1
        errors[name] = error.transpose(0, features).flatten(1).mean(1)
    for name, rows in free_rows(student).items():
        errors[name][rows] = 0
    return errors


def free_rows(student):
    """Rows of linear layers that write keys or values."""
    free = {}
    for projection in projections(student):
        for written in (projection.keys, projection.values):
            free.setdefault(written.linear, []).extend(written.rows)
    return free


def test_no_mean_error_is_left(teacher, images):
    teacher, images = in_float64(teacher, images)
    student = observed(teacher, images)
    before = mean_errors(student, teacher, images)
    correct_bias(student, teacher, images)
    after = mean_errors(student, teacher, images)
    assert sum(error.abs().sum() for error in before.values()) > 1
    for name, error in after.items():
        assert error.abs().max() < 1e-6, name


def test_an_added_bias_is_removed(teacher, images):
    """In a student without quantizers there is no other error to correct."""
    student = quantize(teacher, overrides={"*": {"bits": None}})
    clean = {name: value.clone() for name, value in student.state_dict().items()}
    free = free_rows(student)
    for name, parameter in student.named_parameters():
        owner = student.get_submodule(name.rpartition(".")[0])
        if name.endswith(".bias") and isinstance(owner, QuantLinear | QuantConv2d):
            added = torch.randn(len(parameter))
            added[free.get(name.removesuffix(".bias"), [])] = 0
            parameter.data.add_(added)
    assert not torch.allclose(student(images), teacher(images), atol=0.1)
    correct_bias(student, teacher, images)
    torch.testing.assert_close(student.state_dict(), clean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(student(images), teacher(images), rtol=1e-3, atol=1e-3)


def test_weights_and_grids_do_not_change(teacher, images):
    student = observed(teacher, images)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    correct_bias(student, teacher, images)
    changed = [name for name, value in student.state_dict().items() if not torch.equal(value, before[name])]
    free = free_rows(student)
    layers = [
        name
        for name, part in student.named_modules()
        if isinstance(part, QuantLinear | QuantConv2d) and len(free.get(name, [])) < len(part.bias)
    ]
    assert sorted(changed) == sorted(f"{name}.bias" for name in layers)


def test_keys_and_values_are_not_corrected(tiny_vit, images):
    """Other steps shift keys and scale values, so that the teacher's are no reference."""
    student = quantize(tiny_vit, bits="w8a8")
    calibrate(student, tiny_vit, images, steps=["equalize", "observe"])
    before = student.get_submodule("blocks.0.attn.qkv").bias.clone()
    correct_bias(student, tiny_vit, images)
    after = student.get_submodule("blocks.0.attn.qkv").bias
    assert torch.equal(after[32:], before[32:]) and not torch.equal(after[:32], before[:32])


@pytest.mark.parametrize("rewrite", ["equalize", "reparameterize"])
def test_a_change_of_the_float_weights_is_no_error(teacher, images, rewrite):
    """At 8 bits the errors are small; a change of weights that counted as an error would be large."""
    if not norm_readers(teacher):
        pytest.skip("no norm to fold into")
    teacher, images = in_float64(teacher, images)
    student = quantize(teacher, bits="w8a8")
    calibrate(student, teacher, images, steps=[rewrite, "observe"])
    before = {name: value.clone() for name, value in student.named_parameters() if name.endswith("bias")}
    correct_bias(student, teacher, images)
    for name, value in student.named_parameters():
        if name in before:
            assert (value - before[name]).abs().max() < 0.1, name
    for name, error in mean_errors(student, teacher, images).items():
        assert error.abs().max() < 1e-6, name


@pytest.mark.parametrize("kind", ["vit", "deit", "layer_scale", "swin", "levit"])
def test_mean_errors_shrink_on_other_noise(kind):
    teacher = make_tiny(kind)
    size = teacher.pretrained_cfg["input_size"][1:]
    noise, other_noise = torch.randn(2, 48, 3, *size, generator=torch.Generator().manual_seed(5))
    student = observed(teacher, noise, "w3a3")

    def mean_error(model):
        return (model(other_noise) - teacher(other_noise)).mean(0).square().mean()

    def error(model):
        return (model(other_noise) - teacher(other_noise)).square().mean()

    mean_before, before = mean_error(student), error(student)
    correct_bias(student, teacher, noise)
    assert mean_error(student) < 0.5 * mean_before
    assert error(student) < before


def test_only_the_first_images_are_used(tiny_vit, images):
    by_option, by_slice = observed(tiny_vit, images), observed(tiny_vit, images)
    correct_bias(by_option, tiny_vit, images, CorrectBiasOptions(num_images=4))
    correct_bias(by_slice, tiny_vit, images[:4])
    assert all(torch.equal(value, by_slice.state_dict()[name]) for name, value in by_option.state_dict().items())


def test_before_observe_it_is_refused(tiny_vit, images):
    student = quantize(tiny_vit)
    allow(student)  # the one hook of a student that is not calibrated
    with pytest.raises(ValueError, match=r"output of patch_embed.proj is not finite; put correct_bias after observe"):
        correct_bias(student, tiny_vit, images)
    assert not any(part._forward_hooks for model in (student, tiny_vit) for part in model.modules())


def test_a_layer_without_a_bias_receives_one(images):
    teacher = make_tiny("swin")
    assert teacher.get_submodule("layers.1.downsample.reduction").bias is None
    student = observed(teacher, torch.randn(4, 3, 32, 32))
    bias = student.get_submodule("layers.1.downsample.reduction").bias
    assert isinstance(bias, nn.Parameter) and not bias.requires_grad and not bias.any()
    correct_bias(student, teacher, torch.randn(4, 3, 32, 32))
    assert bias.any()
    assert make_student_float(student, teacher).get_submodule("layers.1.downsample.reduction").bias.any()
