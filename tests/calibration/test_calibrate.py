"""calibrate(): its steps, the state of the calibrated student, and refused arguments."""

import copy
import math

import pytest
import torch
from tiny import FEATURE_KINDS, make_tiny

from vitdfq.calibration import calibrate
from vitdfq.calibration.efforts import default_steps
from vitdfq.calibration.held_out import worst_ratio
from vitdfq.checkpoint.save_load import load, save
from vitdfq.common.errors import NotFiniteError
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize
from vitdfq.quantization.integer import integer_report, to_integer
from vitdfq.quantization.modules import QuantLinear, put_weight_on_grid, weighted_modules
from vitdfq.synthesis import synthesize
from vitdfq.training.trainable import trainable


def on_grid(module) -> bool:
    rows = module.weight.flatten(1)
    return torch.equal(module.weight_quantizer(rows), rows)


def test_a_loaded_student_calibrated_again_ends_on_its_grids(tiny_vit, images, tmp_path):
    """Weights on their grids are not rounded any more. A step that trains has to round them again."""
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    again = load(save(student, tmp_path))
    calibrate(again, tiny_vit, images, steps=[{"reconstruct": {"iterations": 3, "lr": 0.5, "guarded": False}}])
    assert all(on_grid(module) for module in weighted_modules(again))
    assert not torch.equal(again.blocks[0].mlp.fc1.weight, student.blocks[0].mlp.fc1.weight)
    assert torch.equal(load(save(again, tmp_path))(images), again(images))


def test_trainable_weights_are_rounded(tiny_vit, images):
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    with trainable([student]):
        assert not any(module.weight_on_grid for module in weighted_modules(student))
    for module in weighted_modules(student):
        module.weight.add_(0.3 * module.weight_quantizer.scale.view(-1, *[1] * (module.weight.ndim - 1)))
        put_weight_on_grid(module)
        assert on_grid(module)


@pytest.mark.parametrize("kind", ["vit", pytest.param("swin", marks=pytest.mark.slow)])
def test_a_dynamic_student_goes_through_all_default_steps(kind, tmp_path):
    teacher = prepare(make_tiny(kind))
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    student, observed = (quantize(teacher, policy="vitdfq_dynamic") for _ in range(2))
    calibrate(observed, teacher, images, steps=["observe"])
    steps = ["equalize_values", {"center": {"guarded": False}}, "observe", "gptq", {"distill": {"iterations": 3}}]
    assert [name if isinstance(name, str) else next(iter(name)) for name in steps] == default_steps(student)
    calibrate(student, teacher, images, steps=steps)
    linears = [part for part in student.modules() if isinstance(part, QuantLinear)]
    assert linears and all(linear.input_shift.any() for linear in linears)
    assert all(on_grid(module) for module in weighted_modules(student))
    errors = [(model(images) - teacher(images)).square().mean() for model in (student, observed)]
    assert errors[0] < 0.8 * errors[1]
    assert torch.equal(load(save(student, tmp_path))(images), student(images))
    report = integer_report(integer := to_integer(student))
    assert not report["simulated"]
    torch.testing.assert_close(integer(images), student(images), rtol=0, atol=0.05 * student(images).abs().max().item())


@pytest.mark.parametrize("step", ["reconstruct", "distill"])
def test_training_before_observe_is_refused(tiny_vit, images, step):
    with pytest.raises(ValueError, match=f"^{step}: patch_embed.proj.weight_quantizer is not fitted; put {step} after observe$"):
        calibrate(quantize(tiny_vit), tiny_vit, images, steps=[{step: {"iterations": 1}}])


@pytest.mark.parametrize("steps", [[], ["center"]])
def test_steps_that_fit_nothing_are_refused(tiny_vit, images, steps):
    """None means the default steps. An empty list means no step, so that no weight can be put on a grid."""
    student = quantize(tiny_vit)
    with pytest.raises(ValueError, match=r"^calibrate: patch_embed.proj.weight_quantizer is not fitted; steps lack observe$"):
        calibrate(student, tiny_vit, images, steps=steps)
    assert student.blocks[0].mlp.fc1.weight.isfinite().all()


@pytest.mark.parametrize("bits", ["w8a8", pytest.param("w4a4", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_default_steps_work_for_features(kind, bits, tmp_path):
    teacher = make_tiny(kind)
    images, others = (synthesize(teacher, method="dead_leaves", num_images=16, seed=seed) for seed in (0, 1))
    student = calibrate(quantize(teacher, bits=bits), teacher, images)
    error = (student(others) - teacher(others)).norm() / teacher(others).norm()
    assert 0 < error < {"w8a8": 0.1, "w4a4": 0.6}[bits]
    assert torch.equal(load(save(student, tmp_path))(others), student(others))


def test_no_steps_do_not_change_a_fitted_student(tiny_vit, images):
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    before = student(images)
    assert torch.equal(calibrate(student, tiny_vit, images, steps=[])(images), before)


def test_the_first_site_that_is_not_fitted_is_named(tiny_vit, images):
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    student.blocks[1].attn.av.right_quantizer.scale.fill_(math.nan)
    with pytest.raises(ValueError, match=r"blocks\.1\.attn\.av\.right_quantizer is not fitted"):
        calibrate(student, tiny_vit, images, steps=["distill"])


@pytest.mark.parametrize(("step", "unit"), [("reconstruct", " of head"), ("distill", "")])
def test_a_loss_that_is_not_finite_stops_the_training(tiny_vit, images, step, unit):
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    broken = copy.deepcopy(tiny_vit)
    broken.head.bias.fill_(math.nan)
    with pytest.raises(NotFiniteError, match=f"^{step}: the loss{unit} is nan at step 0; try a smaller lr$"):
        calibrate(student, broken, images, steps=[{step: {"iterations": 3}}])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_error_that_is_not_finite_has_an_infinite_ratio(bad):
    assert worst_ratio([bad, 0.5], [1.0, 1.0]) == worst_ratio([0.5, bad], [1.0, 1.0]) == math.inf
    assert worst_ratio([0.5, 0.5], [bad, 1.0]) == math.inf


@pytest.mark.parametrize(
    ("kwargs", "steps"),
    [
        ({"bits": "w8a8"}, ["equalize_values", "center", "observe", "gptq"]),
        ({"bits": "w8a8", "weight": {"bits": 3}}, ["equalize_values", "center", "observe", "gptq", "distill"]),
        (
            {"bits": "w4a4", "weight": {"bits": 6}, "activation": {"bits": 6}},
            ["equalize_values", "center", "observe", "gptq", "distill"],
        ),
        ({"bits": "w4a4", "weight": {"bits": 7}, "activation": {"bits": 7}}, ["equalize_values", "center", "observe", "gptq"]),
        ({"bits": "w4a4", "overrides": {"*": {"weight": {"bits": None}}}}, ["equalize_values", "center", "observe", "distill"]),
        ({"bits": "w4a4", "overrides": {"*": {"bits": None}}}, ["observe"]),  # no activation to center
    ],
)
def test_default_steps_follow_the_bits_that_the_student_has(tiny_vit, kwargs, steps):
    assert default_steps(quantize(tiny_vit, **kwargs)) == steps


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("observe", "steps is 'observe'; expected a list such as ['observe']"),
        ([{"gptq": 3}], "step 'gptq': options is 3; expected a mapping {option: value}"),
        ([{"gptq": {"num_images": 0}}], "step 'gptq': num_images 0 is not a whole number of at least 1"),
        ([{"distill": {"batch_size": 2.0}}], "step 'distill': batch_size 2.0 is not a whole number of at least 1"),
        ([{"reconstruct": {"iterations": True}}], "step 'reconstruct': iterations True is not a whole number of at least 1"),
    ],
)
def test_steps_are_checked_before_any_of_them_runs(tiny_vit, images, steps, message):
    with pytest.raises(ValueError) as caught:
        calibrate(quantize(tiny_vit), tiny_vit, images, steps=steps)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_adaround_of_weights_in_groups_is_refused(tiny_vit, images):
    student, steps = quantize(tiny_vit, weight={"group_size": 16}), ["observe", {"reconstruct": {"rounding": "adaround"}}]
    with pytest.raises(
        ValueError, match=r"^step 'reconstruct': rounding 'adaround' does not go with weight\.group_size 16; choices"
    ):
        calibrate(student, tiny_vit, images, steps=steps)
    assert student.patch_embed.proj.weight_quantizer.scale.isnan().all()  # refused before the first step
