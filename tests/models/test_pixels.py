import timm
import torch

from vitdfq.models import image_range, image_size, load_teacher

SMALL = {"img_size": (16, 24), "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}


def test_range_is_the_models_own():
    low, high = image_range(load_teacher("vit_tiny_patch16_224", pretrained=False, **SMALL))  # mean and std 0.5
    assert low.shape == high.shape == (1, 3, 1, 1)
    assert torch.equal(low, torch.full_like(low, -1.0))
    assert torch.equal(high, torch.full_like(high, 1.0))
    low, high = image_range(load_teacher("deit_tiny_patch16_224", pretrained=False, **SMALL))  # ImageNet's
    torch.testing.assert_close(low.flatten(), torch.tensor([-2.1179, -2.0357, -1.8044]), atol=1e-4, rtol=0)
    torch.testing.assert_close(high.flatten(), torch.tensor([2.2489, 2.4286, 2.6400]), atol=1e-4, rtol=0)


def test_size_is_that_of_the_structure_and_timms_transforms_follow():
    teacher = load_teacher("deit_tiny_patch16_224", pretrained=False, **SMALL)
    assert image_size(teacher) == (16, 24)
    assert tuple(timm.data.resolve_model_data_config(teacher)["input_size"]) == (3, 16, 24)
    assert teacher(torch.zeros(1, 3, 16, 24)).shape == (1, 1000)
