"""Patches shall attend differently from each other: MaskAQ's decoupling term."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vitdfq.synthesis.context import Draws, SynthContext, TeacherFacts


def draw_patches(rng: torch.Generator, facts: TeacherFacts, *, num_patches: int = 64) -> Draws:
    """Draw the patches whose rows of attention are compared: site name -> (num_windows, at most num_patches)."""
    if num_patches < 2:
        raise ValueError(f"num_patches must be at least 2, got {num_patches}")
    return {
        site.name: torch.rand(site.num_windows, math.prod(site.query_grid or site.grid), generator=rng).argsort(1)[
            :, :num_patches
        ]
        for site in facts.sites
    }


def attention_entropy(ctx: SynthContext) -> Tensor:
    """-½ log(2πe · var) of the cosine similarities of attention rows, mean over layers (and windows).

    The entropy of a normal distribution of that variance, negated. From MaskAQ (arXiv 2606.04373) after its published code:
    rows are scores before the softmax, mean over heads, without prefix tokens; all pairs of the drawn patches count. There
    patches are drawn anew at each step, here once for each view.

    Returns:
        (B,)
    """
    layers = []
    for site in ctx.sites:
        skip = site.num_prefix_tokens
        scores = ctx.recorded[f"{site.name}.qk"].mean(1)[:, skip:, skip:]  # (B·windows, n, n)
        patches = ctx.drawn["attention_entropy"][site.name].flatten(0, 1)  # (B·windows, k)
        rows = normalize(scores.gather(1, patches[:, :, None].expand(-1, -1, scores.shape[-1])), dim=-1, eps=1e-6)
        variance = (rows @ rows.mT).flatten(1).var(1, correction=0) + 1e-8
        entropy = 0.5 * (2 * math.pi * math.e * variance).log()
        layers.append(-entropy.view(len(ctx.images), -1).mean(1))
    return torch.stack(layers).mean(0)
