"""Random views of a few images, so that training does not overfit the images themselves."""

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_CROP_AREA = 0.4  # as a share of the image


def augment(images: Tensor, rng: torch.Generator) -> Tensor:
    """Crop each image at random, resize it to its old size, mirror it, and permute its color channels.

    Synthetic images have no orientation, no scale and no true colors, so that each view serves as a new image.

    Args:
        images: (B, 3, H, W).
        rng: on the CPU; the views do not depend on the device of the images.

    Returns:
        views (B, 3, H, W).
    """
    count, channels, height, width = images.shape
    area = MIN_CROP_AREA + (1 - MIN_CROP_AREA) * torch.rand(count, generator=rng)
    size = area.sqrt()  # as a share of each side
    center = (1 - size)[:, None] * (2 * torch.rand(count, 2, generator=rng) - 1)  # the image is [-1, 1]; crops lie inside
    mirror = 2 * torch.randint(0, 2, (count, 2), generator=rng) - 1
    transforms = torch.zeros(count, 2, 3)
    transforms[:, 0, 0], transforms[:, 1, 1] = size * mirror[:, 0], size * mirror[:, 1]
    transforms[:, :, 2] = center
    colors = torch.stack([torch.randperm(channels, generator=rng) for _ in range(count)])
    permuted = images.gather(1, colors.to(images.device)[:, :, None, None].expand(-1, -1, height, width))
    grid = F.affine_grid(transforms.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(permuted, grid, mode="bilinear", padding_mode="border", align_corners=False)
