"""Contracts of every calibration step, and what each is for."""

import pytest
import torch

from vitdfq.calibration import STEPS, calibrate
from vitdfq.models import units
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import weighted_modules

FAST = {"reconstruct": {"iterations": 5}}


def calibrated(teacher, images, steps, bits="w3a3", seed=0):
    return calibrate(quantize(teacher, bits=bits), teacher, images, steps=steps, seed=seed)


def recipe_up_to(name):
    steps = ["observe"] if name != "observe" else []
    return [*steps, {name: FAST.get(name, {})}]


@pytest.mark.parametrize("name", sorted(STEPS))
def test_teacher_bit_equal_no_hook_left_deterministic(teacher, images, name):
    before, state = teacher(images), {key: value.clone() for key, value in teacher.state_dict().items()}
    student, again = (calibrated(teacher, images, recipe_up_to(name)) for _ in range(2))
    assert torch.equal(teacher(images), before)
    assert all(torch.equal(state[key], value) for key, value in teacher.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in student.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in student.parameters())
    assert all(torch.equal(again.state_dict()[key], value) for key, value in student.state_dict().items())
    assert student(images).isfinite().all()


def test_weights_end_on_their_grids(teacher, images):
    student = calibrated(teacher, images, ["observe", {"reconstruct": {"iterations": 3}}])
    for module in weighted_modules(student):
        rows = module.weight.flatten(1)
        assert torch.equal(module.weight_quantizer(rows), rows)
        assert max(row.unique().numel() for row in rows) <= 2**module.weight_quantizer.bits


def test_more_bits_are_closer_to_the_teacher(teacher, images):
    target = teacher(images)
    errors = [
        (calibrated(teacher, images, ["observe"], bits)(images) - target).square().mean()
        for bits in ("w3a3", "w4a4", "w6a6", "w8a8")
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 * target.square().mean()


def test_reconstruction_lowers_every_blocks_error(tiny_vit, images):
    def errors(steps):
        student = calibrated(tiny_vit, images, steps)
        x, found = images, []
        for unit, float_unit in zip(units(student), units(tiny_vit), strict=True):
            target = float_unit.forward(x)
            found.append((unit.forward(x) - target).square().mean().item())
            x = target
        return found

    observed = errors(["observe"])
    trained = errors(["observe", {"reconstruct": {"iterations": 150, "lr": 1e-3, "keep": 0.0}}])
    assert all(after < before for after, before in zip(trained[1:], observed[1:], strict=True))


def test_seed_changes_reconstruction(tiny_vit, images):
    one, other = (calibrated(tiny_vit, images, recipe_up_to("reconstruct"), seed=seed) for seed in (0, 1))
    assert not torch.equal(one(images), other(images))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["observ"], "unknown calibration step 'observ', did you mean 'observe'"),
        ([{"reconstruct": {"iteration": 3}}], "unknown option 'iteration', did you mean 'iterations'"),
        ([3], "a step is a name or"),
    ],
)
def test_bad_steps(tiny_vit, images, steps, message):
    with pytest.raises(ValueError, match=message):
        calibrated(tiny_vit, images, steps)


def test_bad_images(tiny_vit, images):
    with pytest.raises(ValueError, match=r"must be \(N, 3, H, W\)"):
        calibrated(tiny_vit, images[0], ["observe"])
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        calibrated(tiny_vit, images, ["observe"])
