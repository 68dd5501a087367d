"""Block reconstruction: objectives, roundings, units trained independently."""

import pytest
import torch
from tiny import FEATURE_KINDS, make_tiny

from vitdfq.calibration import STEPS, calibrate
from vitdfq.calibration.objectives import OBJECTIVES, _fisher_weights
from vitdfq.calibration.reconstruct import ROUNDINGS, ReconstructOptions, has_weights
from vitdfq.calibration.rounding import learned_rounding
from vitdfq.models import units
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import weighted_modules
from vitdfq.synthesis import synthesize

FAST = {"iterations": 40, "lr": 2e-2, "scale_lr": 1e-2, "keep": 1.0}


def dead_leaves(teacher, count=32, seed=0):
    return synthesize(teacher, method="dead_leaves", num_images=count, seed=seed)


def error(kind, options=None):
    """The squared error of a W3A3 student on other images, reconstructed with these options, or (None) not reconstructed."""
    teacher = make_tiny(kind)
    others = dead_leaves(teacher, 16, seed=9)
    steps = ["observe"] if options is None else ["observe", {"reconstruct": FAST | options}]
    student = calibrate(quantize(teacher, bits="w3a3"), teacher, dead_leaves(teacher), steps=steps)
    return (student(others) - teacher(others)).square().mean()


@pytest.mark.parametrize("kind", ["vit", "swin"])
@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_every_objective_reduces_the_error(objective, kind):
    assert error(kind, {"objective": objective}) < error(kind)


@pytest.mark.parametrize(
    "objective", [name if name == "mse" else pytest.param(name, marks=pytest.mark.slow) for name in OBJECTIVES]
)
@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_features_come_nearer(kind, objective):
    """A model without a head has nothing to train in its last unit."""
    assert error(kind, {"iterations": 20, "objective": objective}) < error(kind)


@pytest.mark.parametrize("kind", ["backbone", pytest.param("embedding", marks=pytest.mark.slow)])
def test_units_without_weights_are_left_out_of_an_independent_training(kind):
    teacher = make_tiny(kind)
    assert has_weights(units(quantize(teacher))[-1]) == (kind == "embedding")
    independent = {"reconstruct": FAST | {"iterations": 2, "independent": True}}
    student = calibrate(quantize(teacher, bits="w3a3"), teacher, dead_leaves(teacher), steps=["observe", independent])
    assert student(dead_leaves(teacher, 2)).isfinite().all()


def test_units_trained_independently_reduce_the_error_and_do_not_depend_on_each_other(tiny_vit):
    images, others = dead_leaves(tiny_vit), dead_leaves(tiny_vit, 16, seed=9)
    wanted = tiny_vit(others)

    def calibrated(steps):
        return calibrate(quantize(tiny_vit, bits="w3a3"), tiny_vit, images, steps=["observe", *steps])

    independent = {"reconstruct": FAST | {"independent": True, "guarded": False}}
    error = lambda student: (student(others) - wanted).square().mean()  # noqa: E731
    assert error(calibrated([independent])) < error(calibrated([]))
    # a trained unit does not depend on the units before it
    student = quantize(tiny_vit, bits="w3a3")
    STEPS["observe"].apply(student, tiny_vit, images)
    with torch.no_grad():
        student.patch_embed.proj.weight.add_(0.1)
    STEPS["reconstruct"].apply(student, tiny_vit, images, ReconstructOptions(**FAST, independent=True, guarded=False))
    assert torch.equal(student.blocks[2].mlp.fc2.bias, calibrated([independent]).blocks[2].mlp.fc2.bias)


@pytest.mark.parametrize("rounding", sorted(ROUNDINGS))
def test_weights_end_on_their_grids_with_every_rounding(tiny_vit, images, rounding):
    steps = ["observe", {"reconstruct": {"iterations": 5, "rounding": rounding, "guarded": False}}]
    student = calibrate(quantize(tiny_vit, bits="w3a3"), tiny_vit, images, steps=steps)
    for module in weighted_modules(student):
        rows = module.weight.flatten(1)
        assert torch.equal(module.weight_quantizer(rows), rows)


def test_adaround_moves_a_weight_by_less_than_a_step(tiny_vit, images):
    student = calibrate(quantize(tiny_vit, bits="w3a3"), tiny_vit, images, steps=["observe"])
    fresh = quantize(tiny_vit, bits="w3a3")
    module, float_weight = student.blocks[0].mlp.fc1, tiny_vit.blocks[0].mlp.fc1.weight
    module.weight.data.copy_(fresh.blocks[0].mlp.fc1.weight)
    module.weight_on_grid = False
    with learned_rounding([module]) as [soft]:
        grid = module.weight_quantizer.quantizer
        codes = (float_weight / grid.scale).floor() + grid.zero_point
        inside = (codes >= 0) & (codes < 2**grid.bits - 1)  # the values below and above are not clipped
        torch.testing.assert_close(
            soft(float_weight)[inside], float_weight[inside], atol=1e-3, rtol=1e-3
        )  # the initial value is the float weight
        with torch.no_grad():
            soft.logit.copy_(torch.randn_like(soft.logit) * 9)
        assert soft.regularizer(2.0) < 0.2
    steps = (module.weight - float_weight)[inside].abs() / module.weight_quantizer.scale.expand_as(float_weight)[inside]
    assert steps.max() <= 1.0 + 1e-4
    assert steps.max() > 0.6  # some were not rounded to nearest


def test_fisher_weights_are_those_of_the_softmax(tiny_vit, images):
    weights = _fisher_weights(tiny_vit, images)
    chain = units(tiny_vit)
    assert len(weights) == len(chain) - 1
    for weight in weights:
        assert weight.mean() == pytest.approx(1.0, rel=1e-4) and (weight >= 0).all()
    assert weights[-1][:, 0].mean() > 100 * weights[-1][:, 1:].mean()  # only the class token reaches the head
    assert not any(parameter.grad is not None for parameter in tiny_vit.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"objective": "msee"}, "unknown objective 'msee', did you mean 'mse'"), ({"rounding": "ada"}, "unknown rounding 'ada'")],
)
def test_unknown_names_are_refused(tiny_vit, images, options, message):
    with pytest.raises(ValueError, match=message):
        calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe", {"reconstruct": options}])
