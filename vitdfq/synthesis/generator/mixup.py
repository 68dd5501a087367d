"""Mixup: convex combinations of images, as additional images for a student's training (not for images being optimized)."""

import numpy as np
import torch
from torch import Tensor


def interpolate(images: Tensor, rng: torch.Generator, *, alpha: float = 0.4, probability: float = 0.5) -> Tensor:
    """Return λ·x + (1 - λ)·x' with a random other image x' of the batch, for each image x with this probability, else x.

    λ ~ Beta(alpha, alpha), drawn for each image; alpha 1 is the uniform distribution. The targets of mixed images are the
    teacher's outputs for the mixed images, never mixed outputs. Averaging shrinks the extremes that determine ranges, so
    `observe` should get unmixed images. AGM-style (10.1109/TCSVT.2024.3399311): the paper's equations were not available to us;
    this is our reading of the abstract. Mixup is that of arXiv 1710.09412.

    Args:
        images: (B, 3, H, W).
        rng: a generator on the CPU.
        alpha: parameter of the Beta distribution.
        probability: of each image to be mixed.

    Returns:
        (B, 3, H, W).

    Raises:
        ValueError: `alpha` not positive, or `probability` outside [0, 1].
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be from 0 to 1, got {probability}")
    count = len(images)
    # torch has no public Beta sampler that takes a generator; NumPy's is seeded from `rng`.
    beta = np.random.default_rng(int(torch.randint(2**32, (), generator=rng)))
    weight = torch.from_numpy(beta.beta(alpha, alpha, count))  # (B,) of x, float64
    weight = torch.where(torch.rand(count, generator=rng) < probability, weight, 1.0)
    partners = images[torch.randperm(count, generator=rng).to(images.device)]
    return torch.lerp(partners, images, weight.to(images).view(-1, 1, 1, 1))
