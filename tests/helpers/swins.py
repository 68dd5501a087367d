"""Swins with difficult shapes: three stages, grids that timm pads, shifted windows, odd grids at the merge."""

import timm
import torch

from vitdfq.models import load_teacher

SWINS = {
    "two_stages": {"img_size": 32, "patch_size": 2, "window_size": 4, "depths": [2, 2], "num_heads": [2, 4]},
    "three_stages": {"img_size": 32, "patch_size": 2, "window_size": 4, "depths": [2, 2, 1], "num_heads": [2, 4, 4]},
    "padded": {"img_size": 26, "patch_size": 2, "window_size": 4, "depths": [2, 2, 2], "num_heads": [2, 4, 4]},
    "any_size": {
        "img_size": 32,
        "patch_size": 2,
        "window_size": 4,
        "depths": [2, 2],
        "num_heads": [2, 4],
        "strict_img_size": False,
    },
    "no_biases": {
        "img_size": 26,
        "patch_size": 2,
        "window_size": 4,
        "depths": [2, 2],
        "num_heads": [2, 4],
        "qkv_bias": False,
    },
}


def make_swin(kind: str, **kwargs) -> torch.nn.Module:
    """An opened Swin, float64, of 10 classes if not told otherwise, every parameter random: gains and shifts of the norms too."""
    kwargs = {"embed_dim": 16, "num_classes": 10, **SWINS[kind], **kwargs}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model("swin_tiny_patch4_window7_224", **kwargs)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_((0.5 if parameter.ndim == 1 else 0.1) * torch.randn_like(parameter))
    return load_teacher(module, **kwargs).double()
