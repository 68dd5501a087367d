"""Regions of an image, each optimized for a class of its own (SARDFQ's multi-semantic reinforcement, MSR).

Implemented from the description in arXiv 2412.16553; sizes that the paper does not give are those of a third-party derivative.
Boxes are integer tensors (..., 4): top, left, height, width in pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitdfq.synthesis.schedule import REFERENCE_SIDE

MIN_SIDE = 4  # pixels; in narrower images one of three strips would be empty


@dataclass(frozen=True)
class Layout:
    """Cells that do not overlap, and the range of the sides of the box drawn in each, in pixels of a 224-pixel image."""

    cells: tuple[tuple[int, int, int, int], ...]  # top, left, height, width
    heights: tuple[int, int]  # first, end (excluded)
    widths: tuple[int, int]


LAYOUTS = {
    2: Layout(((0, 0, 224, 112), (0, 112, 224, 112)), (100, 200), (100, 112)),
    3: Layout(((0, 0, 224, 74), (0, 75, 224, 74), (0, 150, 224, 74)), (100, 200), (70, 74)),
    4: Layout(((0, 0, 112, 112), (0, 112, 112, 112), (112, 0, 112, 112), (112, 112, 112, 112)), (100, 112), (100, 112)),
}
MAX_REGIONS = max(LAYOUTS)
SHRINK, SHORTEST = 30, 10  # pixels by which a sub-crop's side is at most shorter than its region's, and its least length


def draw_regions(rng: torch.Generator, count: int, size: tuple[int, int]) -> Tensor:
    """Draw the regions of one image of `size` (height, width).

    Returns:
        (count, 4) boxes that do not overlap; (0, 4) for count 1, where the whole image is the region and needs no crop.

    Raises:
        ValueError: the image is too small for regions.
    """
    if count == 1:
        return torch.empty(0, 4, dtype=torch.long)
    if min(size) < MIN_SIDE:
        raise ValueError(f"regions need images of at least {MIN_SIDE} pixels a side, got {size}; set max_regions to 1")
    layout = LAYOUTS[count]
    cells = torch.tensor(layout.cells)
    tops, heights = _sides(rng, cells[:, 0], cells[:, 2], layout.heights, size[0])
    lefts, widths = _sides(rng, cells[:, 1], cells[:, 3], layout.widths, size[1])
    return torch.stack([tops, lefts, heights, widths], dim=1)


def _sides(rng: torch.Generator, starts: Tensor, lengths: Tensor, limits: tuple[int, int], side: int) -> tuple[Tensor, Tensor]:
    """Draw start and length, (cells,) each, of a box in each cell along one axis, in pixels of an image of that `side`."""
    first = starts * side // REFERENCE_SIDE
    room = (starts + lengths) * side // REFERENCE_SIDE - first
    shortest, longest = (torch.full_like(room, limit * side // REFERENCE_SIDE) for limit in (limits[0], limits[1] - 1))
    shortest, longest = torch.minimum(shortest, room).clamp(min=1), torch.minimum(longest, room)
    length = _between(torch.rand(len(room), generator=rng), shortest, torch.maximum(longest, shortest))
    return first + _between(torch.rand(len(room), generator=rng), torch.zeros_like(room), room - length), length


def sub_crops(regions: Tensor, uniform: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a random box inside each region, (count, 4), from `uniform` (count, 4) numbers in [0, 1)."""
    sides = torch.tensor(size)
    start, length = regions[:, :2], regions[:, 2:]
    longest = (length - 2).clamp(min=1)
    shrink, shortest = (limit * sides // REFERENCE_SIDE for limit in (SHRINK, SHORTEST))
    shortest = torch.maximum(length - shrink.clamp(min=1), shortest)
    inner = _between(uniform[:, 2:], torch.minimum(shortest, longest).clamp(min=1), longest)
    return torch.cat([start + _between(uniform[:, :2], torch.zeros_like(start), length - inner), inner], dim=1)


def _between(uniform: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """Map numbers in [0, 1) to integers from `lowest` to `highest`, both included."""
    return torch.minimum(lowest + (uniform * (highest - lowest + 1)).long(), highest)


def crop_and_resize(images: Tensor, boxes: Tensor) -> Tensor:
    """Crop box v from image v and enlarge it bilinearly to the image's size, for all V images at once.

    Equals `interpolate(crop, size, mode="bilinear", align_corners=False)`. Two batched matrix products are used rather than
    `grid_sample`: weights outside the box are exactly 0, so that no gradient leaks past its edge through rounded coordinates,
    and the backward pass is deterministic on CUDA.

    Args:
        images: (V, 3, H, W).
        boxes: (V, 4).

    Returns:
        (V, 3, H, W).
    """
    height, width = images.shape[2:]
    boxes = boxes.to(images.device)
    rows = _interpolation(boxes[:, 0], boxes[:, 2], height).to(images.dtype)
    columns = _interpolation(boxes[:, 1], boxes[:, 3], width).to(images.dtype)
    return rows[:, None] @ images @ columns[:, None].mT


def _interpolation(start: Tensor, length: Tensor, side: int) -> Tensor:
    """Return (V, side, side): row i holds the weights of the input pixels in output pixel i."""
    pixels = torch.arange(side, device=start.device)
    inside = (pixels + 0.5) * (length[:, None] / side) - 0.5
    # Clamped to the centers of the box's edge pixels, so that pixels outside get no weight.
    center = start[:, None] + torch.minimum(inside.clamp(min=0), length[:, None] - 1)
    return (1 - (center[:, :, None] - pixels).abs()).clamp(min=0)
