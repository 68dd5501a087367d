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
