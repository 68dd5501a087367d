"""Straight lines between images: more images for a step that distils a student (not for those that are being optimised)."""

import torch
from torch import Tensor


def interpolate(images: Tensor, rng: torch.Generator, *, alpha: float = 0.4, probability: float = 0.5) -> Tensor:
    """Return (B, 3, H, W): each image, with this probability, mixed with another one of the batch drawn at random.

    λ·x + (1 - λ)·x', λ ~ Beta(alpha, alpha) of each image's own; alpha 1 draws it uniformly. The targets of mixed images
    are the teacher's on the mixed images, never mixed logits. Averaging shrinks the extremes that set ranges, so `observe`
    should see unmixed images. AGM-style (10.1109/TCSVT.2024.3399311): the paper's equations were not available to us; this
    is our reading of the abstract.

    Args:
        images: (B, 3, H, W).
        rng: a generator on the CPU.

    Raises:
        ValueError: `alpha` not positive, or `probability` outside [0, 1].
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be from 0 to 1, got {probability}")
    count = len(images)
    # In double precision: for a small alpha both gammas are nearly always very small numbers.
    one, other = torch._standard_gamma(torch.full((2, count), alpha, dtype=torch.float64), generator=rng)
    own = one / (one + other).clamp(min=torch.finfo(torch.float64).tiny)  # (B,)
    own = torch.where(torch.rand(count, generator=rng) < probability, own, 1.0)
    partners = images[torch.randperm(count, generator=rng).to(images.device)]
    return torch.lerp(partners, images, own.to(images).view(-1, 1, 1, 1))
