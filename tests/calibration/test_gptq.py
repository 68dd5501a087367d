"""GPTQ: the output error is never larger than that of rounding to nearest."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitdfq.calibration import calibrate
from vitdfq.calibration.gptq import is_rounded, output_error, round_columns, round_rows
from vitdfq.quantization import QUANTIZERS, quantize
from vitdfq.quantization.modules import QuantConv2d


def layer(seed, rows=6, columns=20, correlation=0.8):
    rng = torch.Generator().manual_seed(seed)
    inputs = torch.randn(400, columns, generator=rng)
    inputs = inputs + correlation * inputs.roll(1, 1) + correlation * torch.randn(400, 1, generator=rng)
    return torch.randn(rows, columns, generator=rng), inputs.T @ inputs / 400


def fitted(weight, bits):
    quantizer = QUANTIZERS["uniform"](bits, shape=(len(weight), 1))
    quantizer.fit(weight)
    return quantizer


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([2, 3, 4]))
def test_no_row_has_a_larger_output_error_than_rounding_to_nearest(seed, bits):
    weight, moments = layer(seed)
    quantizer = fitted(weight, bits)
    moved = round_rows(weight, moments, quantizer)
    after, nearest = (output_error(quantizer(rows) - weight, moments) for rows in (moved, weight))
    assert (after <= nearest).all()
    assert after.sum() < nearest.sum()


def test_weights_of_uncorrelated_inputs_do_not_change():
    weight, _ = layer(0)
    moved = round_columns(weight, torch.diag(torch.rand(20) + 0.1), fitted(weight, 4))
    torch.testing.assert_close(moved, weight)


@pytest.mark.parametrize("columns", [5, 128, 300])
def test_columns_are_put_back_in_order(columns):
    weight, moments = layer(1, columns=columns)
    moments = moments + 0.1 * torch.eye(columns)
    quantizer = fitted(weight, 8)  # at 8 bits hardly anything moves
    torch.testing.assert_close(round_columns(weight, moments, quantizer), weight, rtol=0, atol=0.2)


def test_large_damping_is_rounding_to_nearest(tiny_vit, images):
    plain, damped = (
        calibrate(quantize(tiny_vit, bits="w3a3", weight={"observer": "min_max"}), tiny_vit, images, steps=steps)
        for steps in (["observe"], ["observe", {"gptq": {"damping": 1e9}}])
    )
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(damped.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_the_student_ends_nearer_to_the_teacher(teacher, images):
    other = torch.randn(16, *images.shape[1:], generator=torch.Generator().manual_seed(5))
    wanted = teacher(other)

    def error(steps):
        student = calibrate(
            quantize(teacher, bits="w3a3", activation={"bits": 8}, softmax={"bits": 8}), teacher, images, steps=steps
        )
        return (student(other) - wanted).square().mean()

    assert error(["observe", "gptq"]) < 0.8 * error(["observe"])


@pytest.mark.parametrize("weight", [{"per_channel": False, "symmetric": True}, {"group_size": 16}])
def test_other_granularities(tiny_vit, images, weight):
    wanted = tiny_vit(images)

    def error(steps):
        student = quantize(tiny_vit, bits="w3a3", weight=weight, activation={"bits": 8}, softmax={"bits": 8})
        return (calibrate(student, tiny_vit, images, steps=steps)(images) - wanted).square().mean()

    assert error(["observe", "gptq"]) < error(["observe"])


def test_a_patch_embedding_is_rounded_as_the_linear_layer_of_its_patches(tiny_vit, images):
    gray = images[:, :1].expand_as(images)  # three channels alike, whose errors can compensate each other
    wanted = tiny_vit.patch_embed(gray)
    overrides = {"patch_embed.*": {"weight": {"bits": 3}}}

    def error(steps):
        student = calibrate(quantize(tiny_vit, bits="w8a8", overrides=overrides), tiny_vit, gray, steps=steps)
        return (student.patch_embed(gray) - wanted).square().mean()

    assert error(["observe", "gptq"]) < 0.6 * error(["observe"])


def test_grouped_convolutions_stay_as_observe_fitted_them():
    conv, grouped = (
        QuantConv2d(torch.nn.Conv2d(4, 4, 3, groups=groups), QUANTIZERS["uniform"](4), QUANTIZERS["uniform"](8))
        for groups in (1, 2)
    )
    assert is_rounded(conv)
    assert not is_rounded(grouped)


def test_wrong_damping_and_order_are_refused(tiny_vit, images):
    with pytest.raises(ValueError, match="damping is 0"):
        calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe", {"gptq": {"damping": 0}}])
    with pytest.raises(ValueError, match="put gptq after observe"):
        calibrate(quantize(tiny_vit), tiny_vit, images, steps=["gptq"])
