"""Tiny teachers for every test: built by timm, one-dimensional parameters randomised so that nothing hides behind zeros."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: the default suite has no network
os.environ["HF_DATASETS_OFFLINE"] = "1"

import pytest
import timm
import torch

from vitdfq.models import image_size, load_teacher

TINY = {
    "vit": ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}),
    "deit": (
        "deit_tiny_distilled_patch16_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2},
    ),
    "layer_scale": (
        "vit_small_patch14_dinov2",
        {"img_size": 28, "patch_size": 7, "embed_dim": 32, "depth": 2, "num_heads": 2},
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]},
    ),
}


def make_tiny(kind: str) -> torch.nn.Module:
    """An opened teacher of 10 classes with random weights, the same at every call."""
    name, kwargs = TINY[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model(name, num_classes=10, **kwargs)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
                else:
                    parameter.mul_(2.0)
    return load_teacher(module, **kwargs)


@pytest.fixture(params=sorted(TINY))
def teacher(request) -> torch.nn.Module:
    return make_tiny(request.param)


@pytest.fixture
def tiny_vit() -> torch.nn.Module:
    return make_tiny("vit")


@pytest.fixture
def images(request) -> torch.Tensor:
    """Eight images (8, 3, R, R) that fit the test's teacher."""
    model = request.getfixturevalue("teacher" if "teacher" in request.fixturenames else "tiny_vit")
    return torch.randn(8, 3, *image_size(model), generator=torch.Generator().manual_seed(1))
