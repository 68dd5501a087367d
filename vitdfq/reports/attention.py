"""The teacher's attention on synthetic images, and the priors of their synthesis."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitdfq.common.tensor_dicts import Tensors
from vitdfq.models import attention_sites
from vitdfq.reports.image_grid import to_pixels
from vitdfq.reports.plots import attention_chart
from vitdfq.synthesis.attention_maps import attention_maps, attention_priors

FILE = "stages/attention.safetensors"  # of a run whose images have priors, for its page
NUM_IMAGES = 4


def teacher_attention(teacher: nn.Module, images: Tensor, section: Mapping[str, Any] | None) -> Tensors:
    """Return "maps", the last block's attention to the patches of the first images, and "priors" if their synthesis has some.

    Each is (NUM_IMAGES, num_heads, h, w) or fewer images. A teacher without attention sites has neither.

    Args:
        teacher: made the images.
        images: (N, 3, H, W), normalized.
        section: keyword arguments of `synthesize` that made the images; None: real images.
    """
    if not attention_sites(teacher):
        return {}
    first = images[:NUM_IMAGES]
    priors = None if section is None else attention_priors(teacher, len(first), section)
    return {"maps": attention_maps(teacher, first)} | ({} if priors is None else {"priors": priors})


def save_attention(teacher: nn.Module, images: Tensor, tensors: Tensors, path: Path) -> None:
    """Write the picture of what `teacher_attention` returned; without matplotlib no file is written."""
    pixels = to_pixels(teacher, images[: len(tensors["maps"])])
    attention_chart(pixels, tensors["maps"], tensors.get("priors")).save_png(path)
