"""BatchNorm goes into the layers beside it, whether it stands behind them or before."""

import pytest
import torch
from tiny import TINY, make_tiny
from torch import nn

import vitdfq
from vitdfq.calibration.calibrate import default_steps as default_calibration
from vitdfq.models import image_size
from vitdfq.preparation import prepare
from vitdfq.preparation.fold_batch_norm import fold_batch_norm, has_batch_norm
from vitdfq.preparation.prepare import default_steps
from vitdfq.quantization import sites


@pytest.fixture
def levit():
    return make_tiny("levit").double()


@pytest.fixture
def images(levit):
    return torch.randn(4, 3, *image_size(levit), dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_the_function_stays(levit, images):
    folded = prepare(levit, steps=["fold_batch_norm"])
    torch.testing.assert_close(folded(images), levit(images), rtol=1e-9, atol=1e-9)
    single = prepare(levit.float(), steps=["fold_batch_norm"])(images.float())
    torch.testing.assert_close(single, levit(images.float()), rtol=1e-5, atol=1e-5)


def test_every_statistic_matters(levit, images):
    """Were one of them not folded, the function would not stay."""
    expected = levit(images[:1])
    for name, value in levit.state_dict().items():
        if ".bn." in name and "num_batches" not in name:
            kept = value.clone()
            value.add_(0.1 * value.abs().mean())
            assert (levit(images[:1]) - expected).abs().max() > 1e-6, name
            value.copy_(kept)


def test_nothing_is_left_and_names_stay(levit):
    folded = prepare(levit, steps=["fold_batch_norm"])
    assert has_batch_norm(levit) and not has_batch_norm(folded)
    assert list(sites(folded)) == list(sites(levit))
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    again = prepare(folded, steps=["fold_batch_norm"])
    assert all(torch.equal(a, b) for a, b in zip(folded.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("kind", sorted(TINY))
def test_a_default_where_there_are_batch_norms(kind):
    assert ("fold_batch_norm" in default_steps(make_tiny(kind))) == (kind == "levit")


def test_a_batch_norm_elsewhere_is_refused():
    with pytest.raises(ValueError, match="fold_batch_norm works on LeViT's layers only; what stands beside 1 is"):
        fold_batch_norm(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


def test_rotations_say_why_not(levit):
    with pytest.raises(ValueError, match="rotate_heads works on vit and swin only, not on this LevitDistilled"):
        prepare(levit, steps=["rotate_heads"])


def test_the_steps_of_calibration_end_near_the_teacher_and_survive_a_checkpoint(tmp_path):
    """The line of a user: prepare, quantize, calibrate by the default steps (fewer iterations), save, load, dequantize."""
    teacher = make_tiny("levit")
    images = vitdfq.synthesize(teacher, method="dead_leaves", num_images=16)
    prepared = vitdfq.prepare(teacher)
    student = vitdfq.quantize(prepared, bits="w4a8")
    assert default_calibration(student) == ["center", "observe", "gptq", "distill"]
    vitdfq.calibrate(student, prepared, images, steps=["center", "observe", "gptq", {"distill": {"iterations": 10}}])
    target = teacher(images)
    assert (student(images) - target).square().mean() < 0.15 * (target - target.mean(0)).square().mean()
    folder = vitdfq.save(student, tmp_path)
    assert torch.equal(vitdfq.load(folder)(images), student(images))
    plain = vitdfq.load(folder, dequantize=True)
    assert (plain(images) - target).square().mean() < 0.15 * (target - target.mean(0)).square().mean()
