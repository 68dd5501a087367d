"""BatchNorm goes into the layers beside it, whether it stands behind them or before."""

import pytest
import torch
from tiny import kinds_with, make_tiny
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import vitdfq
from vitdfq.calibration.efforts import default_steps as default_calibration
from vitdfq.models import image_size
from vitdfq.preparation import prepare
from vitdfq.preparation.fold import fold_batch_norm, has_batch_norm
from vitdfq.preparation.prepare import default_steps
from vitdfq.quantization import sites

NORMED = kinds_with(has_batch_norm)


@pytest.fixture(params=NORMED)
def normed(request):
    return make_tiny(request.param).double()


@pytest.fixture
def images(normed):
    return torch.randn(4, 3, *image_size(normed), dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_the_function_stays(normed, images):
    folded = prepare(normed, steps=["fold_batch_norm"])
    torch.testing.assert_close(folded(images), normed(images), rtol=1e-9, atol=1e-9)
    single = prepare(normed.float(), steps=["fold_batch_norm"])(images.float())
    torch.testing.assert_close(single, normed(images.float()), rtol=1e-5, atol=1e-5)


def test_every_statistic_matters(normed, images):
    """Were one of them not folded, the function would not stay."""
    expected = normed(images[:1])
    for name, part in normed.named_modules():
        if isinstance(part, _BatchNorm):
            for value in (part.weight, part.bias, part.running_mean, part.running_var):
                kept = value.clone()
                value.add_(0.1 * value.abs().mean())
                assert (normed(images[:1]) - expected).abs().max() > 1e-6, name
                value.copy_(kept)


def test_nothing_is_left_and_names_stay(normed):
    folded = prepare(normed, steps=["fold_batch_norm"])
    assert has_batch_norm(normed) and not has_batch_norm(folded)
    assert list(sites(folded)) == list(sites(normed))
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    again = prepare(folded, steps=["fold_batch_norm"])
    assert all(torch.equal(a, b) for a, b in zip(folded.parameters(), again.parameters(), strict=True))


def test_a_default_where_there_are_batch_norms(teacher):
    assert ("fold_batch_norm" in default_steps(teacher)) == has_batch_norm(teacher)
    assert "levit" in NORMED and "vit" not in NORMED


def test_a_batch_norm_that_no_family_lists_stays_and_is_counted(tiny_vit):
    tiny_vit.head = nn.Sequential(nn.BatchNorm1d(32), tiny_vit.head)
    assert fold_batch_norm(tiny_vit).why_not == "none of 1 stands beside one layer alone"
    assert has_batch_norm(tiny_vit)


def test_rotations_give_the_reason_of_a_refusal():
    with pytest.raises(ValueError, match=r"rotate_heads works on vit, swin, .* only, not on this LevitDistilled"):
        prepare(make_tiny("levit"), steps=["rotate_heads"])


def test_the_steps_of_calibration_end_near_the_teacher_and_survive_a_checkpoint(tmp_path):
    """The line of a user: prepare, quantize, calibrate by the default steps (fewer iterations), save, load, dequantize."""
    teacher = make_tiny("levit")
    images = vitdfq.synthesize(teacher, method="dead_leaves", num_images=16)
    prepared = vitdfq.prepare(teacher)
    student = vitdfq.quantize(prepared, bits="w4a8")
    assert default_calibration(student) == ["equalize_values", "center", "observe", "gptq", "distill"]
    vitdfq.calibrate(student, prepared, images, steps=["center", "observe", "gptq", {"distill": {"iterations": 10}}])
    target = teacher(images)
    assert (student(images) - target).square().mean() < 0.15 * (target - target.mean(0)).square().mean()
    folder = vitdfq.save(student, tmp_path)
    assert torch.equal(vitdfq.load(folder)(images), student(images))
    plain = vitdfq.load(folder, dequantize=True)
    assert (plain(images) - target).square().mean() < 0.15 * (target - target.mean(0)).square().mean()
