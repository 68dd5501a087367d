"""Patches differ from each other: PSAQ-ViT's patch similarity entropy (PSE)."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vitdfq.synthesis.objective.context import SynthContext, TeacherFacts


def attention_outputs(facts: TeacherFacts) -> list[str]:
    """`Loss.listens`: the outputs of attention, before the projection, of all sites."""
    return [f"{site.name}.av" for site in facts.sites]


def patch_similarity(ctx: SynthContext, *, bandwidth: float = 0.01, num_points: int = 10) -> Tensor:
    """Return ∫ f log f, the negative differential entropy of the cosine similarities of patches, summed over blocks.

    From PSAQ-ViT (arXiv 2203.02250). f is a Gaussian kernel density estimate of the similarities between the head-averaged
    outputs of attention; with windows, of the similarities within each window, pooled over the image. There are two
    differences from the published code. The density is evaluated between the extreme similarities of each image, not of the
    batch, so that an image does not depend on its batch. And the model's prefix tokens are left out; the published code
    leaves out one token whatever the model, hence one patch of every Swin window.

    Args:
        ctx: recorded `.av` of all sites.
        bandwidth: standard deviation of the kernel.
        num_points: points at which the integrand is evaluated (trapezoidal rule).

    Returns:
        (B,)
    """
    entropies: list[Tensor] = []
    for site in ctx.sites:
        tokens = ctx.recorded[f"{site.name}.av"].mean(1)[:, site.num_prefix_tokens :]  # (B·windows, n, d)
        tokens = normalize(tokens, dim=-1)
        similarity = torch.bmm(tokens, tokens.mT)  # (B·windows, n, n)
        entropies.append(_entropy(similarity.view(len(ctx.images), -1), bandwidth, num_points))
    return -torch.stack(entropies).sum(0)


def _entropy(samples: Tensor, bandwidth: float, num_points: int) -> Tensor:
    """Return the differential entropy of a Gaussian kernel density estimate of samples (B, M). (B,)"""
    least, greatest = samples.detach().aminmax(dim=1, keepdim=True)
    grid = torch.linspace(0, 1, num_points, device=samples.device, dtype=samples.dtype)
    points = least + (greatest - least) * grid  # (B, points)
    kernels = torch.exp(-(points[:, :, None] - samples[:, None, :]).square() / (2 * bandwidth**2))
    density = kernels.mean(-1) / math.sqrt(2 * math.pi * bandwidth**2) + 1e-4
    return torch.trapezoid(-density * density.log(), points, dim=1)
