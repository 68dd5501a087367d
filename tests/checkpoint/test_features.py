"""Models that give features: prepared, quantized, calibrated, saved, loaded to the last bit, dequantized; no class is needed."""

import pytest
import torch
from tiny import FEATURES, make_tiny

import vitdfq
from vitdfq.checkpoint.save_load import describe
from vitdfq.models import gives, image_size


@pytest.fixture(params=sorted(FEATURES))
def teacher(request):
    return make_tiny(request.param)


@torch.no_grad()
def test_the_line_without_classes(teacher, tmp_path):
    images = torch.randn(8, 3, *image_size(teacher), generator=torch.Generator().manual_seed(1))
    prepared = vitdfq.prepare(teacher)
    features = teacher(images)
    assert (prepared(images) - features).norm() < 1e-5 * features.norm()
    student = vitdfq.quantize(prepared, bits="w8a8")
    vitdfq.calibrate(student, prepared, images, steps=[{"center": {"guarded": False}}, "observe", "gptq"])
    quantized = student(images)
    assert 1e-4 * features.norm() < (quantized - features).norm() < 0.2 * features.norm()
    loaded = vitdfq.load(vitdfq.save(student, tmp_path))
    assert torch.equal(loaded(images), quantized) and gives(loaded) == "features"
    description = describe(tmp_path)
    assert description["features"] == features.shape[-1] and "classes" not in description
    plain = vitdfq.load(tmp_path, dequantize=True)
    assert set(plain.state_dict()) == set(teacher.state_dict())
    assert (plain(images) - features).norm() < 0.2 * features.norm()


@torch.no_grad()
@pytest.mark.parametrize("step", ["center", "reconstruct", "distill"])
def test_steps_that_compare_classes_are_refused(step):
    teacher = make_tiny("backbone")
    images = torch.randn(4, 3, *image_size(teacher), generator=torch.Generator().manual_seed(1))
    steps = [step] if step == "center" else ["observe", step]
    with pytest.raises(ValueError, match=rf"{step}.* works on models that give classes only, not yet on vit_small"):
        vitdfq.calibrate(vitdfq.quantize(teacher), teacher, images, steps=steps)


def test_synthesis_with_losses_is_refused(teacher):
    with pytest.raises(ValueError, match="synthesis with losses works on models that give classes only"):
        vitdfq.synthesize(teacher, num_images=1)
    assert vitdfq.synthesize(teacher, method="dead_leaves", num_images=1).isfinite().all()  # painted images need no classes
