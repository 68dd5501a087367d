"""Patches shall differ from each other: PSAQ-ViT's patch similarity entropy (PSE)."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vitdfq.synthesis.objective.context import SynthContext, TeacherFacts


def attention_outputs(facts: TeacherFacts) -> list[str]:
    return [f"{site.name}.av" for site in facts.sites]


def patch_similarity(ctx: SynthContext, *, bandwidth: float = 0.01, num_points: int = 10) -> Tensor:
    """Negative differential entropy of the cosine similarities between patches, summed over all blocks.

    From PSAQ-ViT, arXiv 2203.02250. Similarities are between the head-mean outputs of attention; for windowed attention
    those within each window, pooled over the image. Differs from the published code in two places: the density is
    evaluated between the least and greatest similarity of each image rather than of the batch, so that an image does
    not depend on its batch; and the model's true prefix tokens are dropped, where that code drops one token whatever
    the model (and so one patch of every Swin window).

    Returns:
        (B,)
    """
    entropies = []
    for site in ctx.sites:
        tokens = ctx.recorded[f"{site.name}.av"].mean(1)[:, site.num_prefix_tokens :]  # (B·windows, n, d)
        tokens = normalize(tokens, dim=-1)
        similarity = torch.bmm(tokens, tokens.mT)  # (B·windows, n, n)
        entropies.append(_entropy(similarity.view(len(ctx.images), -1), bandwidth, num_points))
    return -torch.stack(entropies).sum(0)


def _entropy(samples: Tensor, bandwidth: float, num_points: int) -> Tensor:
    """Differential entropy of a Gaussian kernel density estimate: (B, M) samples -> (B,)."""
    least, greatest = samples.detach().aminmax(dim=1, keepdim=True)
    grid = torch.linspace(0, 1, num_points, device=samples.device, dtype=samples.dtype)
    points = least + (greatest - least) * grid  # (B, points)
    kernels = torch.exp(-(points[:, :, None] - samples[:, None, :]).square() / (2 * bandwidth**2))
    density = kernels.mean(-1) / math.sqrt(2 * math.pi * bandwidth**2) + 1e-4
    return torch.trapezoid(-density * density.log(), points, dim=1)
