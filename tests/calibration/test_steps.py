"""Contracts of every calibration step."""

import pytest
import torch
from tiny import TO_CALIBRATE, make_tiny

from vitdfq.calibration import STEPS, calibrate
from vitdfq.checkpoint.save_load import load, save
from vitdfq.models import image_size, units
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import weighted_modules

FAST = {"reconstruct": {"iterations": 5}, "distill": {"iterations": 5}}
REWRITES = (
    "center",
    "equalize",
    "equalize_values",
    "reparameterize",
)  # they change float weights, before the quantizers are fitted


def calibrated(teacher, images, steps, bits="w3a3", seed=0):
    return calibrate(quantize(teacher, bits=bits), teacher, images, steps=steps, seed=seed)


def recipe_up_to(name):
    step = {name: FAST.get(name, {})}
    if name in REWRITES:
        return [step, "observe"]
    return [step] if name == "observe" else ["observe", step]


@pytest.mark.parametrize("name", sorted(STEPS))
@pytest.mark.parametrize("kind", TO_CALIBRATE)
def test_a_step_changes_the_student_alone_is_deterministic_and_survives_a_checkpoint(kind, name, tmp_path):
    teacher = make_tiny(kind)
    images = torch.randn(8, 3, *image_size(teacher), generator=torch.Generator().manual_seed(1))
    before, state = teacher(images), {key: value.clone() for key, value in teacher.state_dict().items()}
    student, again = (calibrated(teacher, images, recipe_up_to(name)) for _ in range(2))
    assert torch.equal(teacher(images), before)
    assert all(torch.equal(state[key], value) for key, value in teacher.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in student.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in student.parameters())
    assert all(torch.equal(again.state_dict()[key], value) for key, value in student.state_dict().items())
    assert student(images).isfinite().all()
    assert torch.equal(load(save(student, tmp_path))(images), student(images))


@pytest.mark.parametrize("name", REWRITES)
def test_steps_that_change_ranges_are_refused_after_observe(tiny_vit, images, name):
    with pytest.raises(ValueError, match=f"{name}: the quantizers are fitted already.*; put it before observe"):
        calibrated(tiny_vit, images, ["observe", name])


@pytest.mark.parametrize("name", ["equalize", "equalize_values", "reparameterize"])
def test_steps_that_change_means_are_refused_after_center(tiny_vit, images, name):
    with pytest.raises(ValueError, match=f"{name}: the inputs are centered already.*; put it before center"):
        calibrated(tiny_vit, images, ["center", name, "observe"])


@pytest.mark.parametrize("name", ["equalize", "reparameterize"])
def test_steps_that_fold_into_norms_are_refused_for_a_rotated_model(tiny_vit, images, name):
    rotated = prepare(tiny_vit, steps=["rotate_residual"])
    student = quantize(rotated)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    with pytest.raises(ValueError, match=f"^{name}: blocks.0.norm1 has no affine to fold into .*fold_layer_scale") as caught:
        calibrate(student, rotated, images, steps=[name, "observe"])
    assert "\n" not in str(caught.value)
    torch.testing.assert_close(student.state_dict(), before, rtol=0, atol=0, equal_nan=True)


def test_weights_end_on_their_grids(teacher, images):
    student = calibrated(teacher, images, ["observe", {"reconstruct": {"iterations": 3}}])
    for module in weighted_modules(student):
        rows = module.weight.flatten(1)
        assert torch.equal(module.weight_quantizer(rows), rows)
        assert max(row.unique().numel() for row in rows) <= 2**module.weight_quantizer.bits


def test_more_bits_are_closer_to_the_teacher(teacher, images):
    target, alone = teacher(images), {"observe": {"num_cover": 0}}  # at 8 bits ranges would cover other images too
    three, four, six, eight = (
        (calibrated(teacher, images, [alone], bits)(images) - target).square().mean() for bits in ("w3a3", "w4a4", "w6a6", "w8a8")
    )
    # 8 bits may gain little on 6: the head's input has 8 in both, and only below 8 has each head and prefix token its own scale.
    assert four < three and max(six, eight) < four / 2 and eight < 1.15 * six
    assert eight < 0.01 * target.square().mean()


def test_reconstruction_lowers_every_units_error(tiny_vit, images):
    """The head is at 3 bits too: at its usual 8 it has hardly an error to lower."""

    def errors(steps):
        three = {"weight": {"bits": 3}, "activation": {"bits": 3}}
        student = calibrate(quantize(tiny_vit, bits="w3a3", overrides={"head": three}), tiny_vit, images, steps=steps)
        x, measured = images, []
        for unit, float_unit in zip(units(student), units(tiny_vit), strict=True):
            target = float_unit.forward(x)
            measured.append((unit.forward(x) - target).square().mean().item())
            x = target
        return measured

    observed = errors(["observe"])
    trained = errors(["observe", {"reconstruct": {"iterations": 150, "lr": 5e-3, "keep": 0.0, "guarded": False}}])
    assert all(after < 0.8 * before for after, before in zip(trained, observed, strict=True))


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
def test_wrong_steps_are_refused(tiny_vit, images, steps, message):
    with pytest.raises(ValueError, match=message):
        calibrated(tiny_vit, images, steps)


def test_wrong_images_are_refused(tiny_vit, images):
    with pytest.raises(ValueError, match=r"must be \(N, 3, H, W\)"):
        calibrated(tiny_vit, images[0], ["observe"])
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        calibrated(tiny_vit, images, ["observe"])
