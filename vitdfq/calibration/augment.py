"""Endless views of a few images, so that training does not learn the images themselves."""

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_AREA = 0.4  # of a crop, as a share of the image


def augmented(images: Tensor, rng: torch.Generator) -> Tensor:
    """Crop each image at random, resize it to its old size, mirror it, and permute its color channels; (B, 3, H, W) -> the same.

    Synthetic images have no up, no scale and no true colors, so all of these are as good as new ones.
    """
    count, channels, height, width = images.shape
    area = SMALLEST_AREA + (1 - SMALLEST_AREA) * torch.rand(count, generator=rng)
    size = area.sqrt()  # as a share of each side
    center = (1 - size)[:, None] * (2 * torch.rand(count, 2, generator=rng) - 1)  # in [-1, 1], the whole crop inside
    mirror = 2 * torch.randint(0, 2, (count, 2), generator=rng) - 1
    views = torch.zeros(count, 2, 3)
    views[:, 0, 0], views[:, 1, 1] = size * mirror[:, 0], size * mirror[:, 1]
    views[:, :, 2] = center
    colors = torch.stack([torch.randperm(channels, generator=rng) for _ in range(count)])
    shuffled = images.gather(1, colors.to(images.device)[:, :, None, None].expand(-1, -1, height, width))
    grid = F.affine_grid(views.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(shuffled, grid, mode="bilinear", padding_mode="border", align_corners=False)
