"""The picture of the teacher's attention on synthetic images, beside the priors of their synthesis."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitdfq.models import attention_sites
from vitdfq.reports.image_grid import to_pixels
from vitdfq.reports.plots import attention_chart
from vitdfq.synthesis.attention_maps import attention_maps, attention_priors

NUM_IMAGES = 4


def save_attention(teacher: nn.Module, images: Tensor, section: Mapping[str, Any] | None, path: Path) -> None:
    """Write the attention of the last block to the first images, beside its priors if their synthesis has some.

    Without matplotlib no file is written.

    Args:
        teacher: has attention sites.
        images: (N, 3, H, W), normalized.
        section: keyword arguments of `synthesize` that made the images; None: real images.
        path: of the PNG file.
    """
    first = images[:NUM_IMAGES]
    priors = None if section is None else attention_priors(teacher, len(first), section)
    attention_chart(to_pixels(teacher, first), attention_maps(teacher, first), priors).save_png(path)


def has_priors(teacher: nn.Module, section: Mapping[str, Any]) -> bool:
    """Return whether the synthesis of these keyword arguments draws attention priors for the teacher."""
    return bool(attention_sites(teacher)) and attention_priors(teacher, 1, section) is not None
