"""Patches shall attend differently from each other: MaskAQ's decoupling term."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vitdfq.synthesis.objective.context import Draws, SynthContext, TeacherFacts


def draw_patches(rng: torch.Generator, facts: TeacherFacts, *, num_patches: int = 64) -> Draws:
    """Draw the order in which patches are taken to compare their rows of attention: site name -> (num_windows, n)."""
    if num_patches < 2:
        raise ValueError(f"num_patches must be at least 2, got {num_patches}")
    counts = {site.name: (site.num_windows, math.prod(site.query_grid or site.grid)) for site in facts.sites}
    return {name: torch.rand(count, generator=rng).argsort(1) for name, count in counts.items()}


def attention_entropy(ctx: SynthContext, *, num_patches: int = 64) -> Tensor:
    """-½ log(2πe · var) of the cosine similarities of attention rows, mean over layers (and windows).

    The entropy of a normal distribution of that variance, negated. From MaskAQ (arXiv 2606.04373) after its published code:
    rows are scores before the softmax, mean over heads, without prefix tokens; all pairs of the first `num_patches` of a drawn
    order of patches count, without those that left a sparse run. There patches are drawn anew at each step, here once for each
    view.

    Returns:
        (B,)
    """
    layers = []
    for site in ctx.sites:
        skip = site.num_prefix_tokens
        scores = ctx.recorded[f"{site.name}.qk"].mean(1)[:, skip:, skip:]  # (B·windows, n, n)
        patches = first_shown(ctx.drawn["attention_entropy"][site.name].flatten(0, 1), ctx.kept, num_patches)
        rows = normalize(scores.gather(1, patches[:, :, None].expand(-1, -1, scores.shape[-1])), dim=-1, eps=1e-6)
        variance = (rows @ rows.mT).flatten(1).var(1, correction=0) + 1e-8
        entropy = 0.5 * (2 * math.pi * math.e * variance).log()
        layers.append(-entropy.view(len(ctx.images), -1).mean(1))
    return torch.stack(layers).mean(0)


def first_shown(order: Tensor, kept: Tensor | None, count: int) -> Tensor:
    """The first `count` patches of an order (B, n), as rows of what is shown: of all patches, or of those `kept` (B, k)."""
    if kept is None:
        return order[:, :count]
    ranks = order.argsort(1).gather(1, kept)  # where in the order each patch stands that is left
    return ranks.argsort(1)[:, :count]
