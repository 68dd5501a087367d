"""Centering subtracts the mean over tokens, and does not change the float function."""

import pytest
import torch
from tiny import make_tiny

from vitdfq.calibration import calibrate
from vitdfq.calibration.center import CenterOptions, center
from vitdfq.calibration.folding import float_inputs
from vitdfq.calibration.held_out import HeldOutValidation
from vitdfq.checkpoint.save_load import load, save
from vitdfq.models import load_teacher, projections
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import QuantLinear

FLOAT = {"*": {"bits": None}}


@pytest.mark.parametrize("kind", ["vit", "deit", "layer_scale", "swin", "levit"])
@pytest.mark.parametrize("prepared", [False, True])
def test_the_float_function_does_not_change_on_other_images(kind, prepared):
    teacher = make_tiny(kind).double()
    if prepared:
        steps = ["fold_batch_norm"] if kind == "levit" else ["rotate_residual", "rotate_heads"]
        teacher = prepare(teacher, steps=steps)
    size = teacher.pretrained_cfg["input_size"][1:]
    student = quantize(teacher, overrides=FLOAT)
    center(student, teacher, torch.randn(4, 3, *size, dtype=torch.float64), CenterOptions(guarded=False))
    moved = max(part.input_shift.abs().max().item() for part in student.modules() if isinstance(part, QuantLinear))
    assert moved > 0.1
    others = 3 * torch.randn(4, 3, *size, dtype=torch.float64) + 1
    torch.testing.assert_close(student(others), teacher(others), rtol=1e-9, atol=1e-9)


def test_quantized_activations_have_no_mean(teacher, images):
    student = quantize(teacher, overrides=FLOAT)
    center(student, teacher, images, CenterOptions(guarded=False))
    linears = {name: part for name, part in student.named_modules() if isinstance(part, QuantLinear)}
    means = float_inputs(student, {name: (name,) for name in linears}, images, lambda name, inputs: inputs.mean(0))
    for name, mean in means.items():
        torch.testing.assert_close(mean, linears[name].input_shift, rtol=1e-3, atol=1e-4)
    for projection in projections(student):
        for rows in [projection.keys] * projection.shifts + [projection.values] * bool(projection.reader):
            linear = linears[rows.linear]
            written = linear.weight @ (means[rows.linear] - linear.input_shift) + linear.bias
            beside = 0 if rows.bias is None else student.get_parameter(rows.bias)
            assert (written[list(rows.rows)] + beside).abs().max() < 1e-3


def test_a_second_time_changes_nothing(tiny_vit, images):
    student = quantize(tiny_vit, overrides=FLOAT)
    center(student, tiny_vit, images, CenterOptions(guarded=False))
    once = {name: value.clone() for name, value in student.state_dict().items()}
    center(student, tiny_vit, images, CenterOptions(guarded=False))
    torch.testing.assert_close(dict(student.state_dict()), once, rtol=1e-4, atol=1e-4)


@pytest.mark.integration
def test_a_mean_of_these_images_alone_is_left():
    """Flat gray images: other images have another mean token."""
    teacher = load_teacher("zoo:deit")
    flat = torch.full((8, 3, 28, 28), 0.2)
    student = quantize(teacher)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    center(student, teacher, flat)
    torch.testing.assert_close(dict(student.state_dict()), before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("noise_ratio", "errors", "helps"),  # errors of the centered student; those before are 1
    [  # on the images given and procedural ones
        (0.3, (0.5, 0.5), True),
        (0.3, (2.0, 0.5), False),
        (0.3, (0.5, 2.0), False),
        (0.3, (0.93, 0.92), True),  # of the ViT-S of natural images at W4A4, which gains
        (0.3, (0.97, 0.5), False),
        # on the images given, noise and procedural ones
        (1.0, (0.80, 0.69, 0.74), True),
        (1.0, (0.5, 2.0, 0.5), False),
        (1.0, (0.75, 0.75, 0.93), False),  # of zoo:deit at W3A3 on noise, seed 0, which would be spoiled
        (None, (0.75, 0.75, 0.93), False),  # a teacher without LayerNorms
    ],
)
def test_centering_stays_only_if_every_kind_of_image_gains(tiny_vit, images, monkeypatch, noise_ratio, errors, helps):
    """See benchmarks/centering.py for images of which one kind alone would mislead."""

    def is_centered(student):
        return any(part.input_shift.any() for part in student.modules() if isinstance(part, QuantLinear))

    def measured(validation, student):
        assert len(validation.targets) == len(errors)
        return list(errors) if is_centered(student) else [1.0] * len(errors)

    monkeypatch.setattr(HeldOutValidation, "errors", measured)
    monkeypatch.setattr("vitdfq.calibration.center.NoiseReference.ratio", lambda *arguments: noise_ratio)
    student = quantize(tiny_vit)
    center(student, tiny_vit, images)
    assert is_centered(student) == helps


def test_noise_is_measured_once(tiny_vit, images, monkeypatch):
    measured = []

    def quality(teacher, shown):
        measured.append(shown)
        return {"layer_norm_distance": 1.0}

    monkeypatch.setattr("vitdfq.synthesis.teacher_filter.quality", quality)
    center(quantize(tiny_vit), tiny_vit, images)
    assert len(measured) == 3  # these images, noise, and scenes for the validation


def test_a_common_offset_costs_no_precision(tiny_vit, images):
    with torch.no_grad():
        for block in tiny_vit.blocks:
            block.norm1.bias += 3.0  # in every token: most of the range
            block.norm2.bias -= 3.0
    wanted = tiny_vit(images)

    def error(steps):
        student = calibrate(quantize(tiny_vit, bits="w8a8", activation={"bits": 4}), tiny_vit, images, steps=steps)
        return (student(images) - wanted).square().mean()

    assert error(["center", "observe"]) < 0.5 * error(["observe"])


def test_dequantized_checkpoint_is_a_plain_model(teacher, images, tmp_path):
    student = calibrate(quantize(teacher, bits="w8a8"), teacher, images, steps=["center", "observe"])
    plain = load(save(student, tmp_path), dequantize=True)
    assert not any(isinstance(part, QuantLinear) for part in plain.modules())
    wanted = teacher(images)
    assert (plain(images) - wanted).square().mean() < 1e-3 * wanted.square().mean()
