"""Tiny teachers: built by timm, one-dimensional parameters randomised so that nothing hides behind zeros."""

import timm
import torch

from vitdfq.models import load_teacher
from vitdfq.quantization import quantize

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


def make_student_float(student: torch.nn.Module, teacher: torch.nn.Module) -> torch.nn.Module:
    """The float function of a student whose weights are not on their grids: its tensors, without any quantizer."""
    plain = quantize(teacher, overrides={"*": {"bits": None}})
    state = student.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    return plain
