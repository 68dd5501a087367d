"""Patches have dissimilar rows of attention: MaskAQ's decoupling loss."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vitdfq.synthesis.objective.context import Draws, SynthContext, TeacherFacts


def draw_patches(rng: torch.Generator, facts: TeacherFacts, *, num_patches: int = 64) -> Draws:
    """`Loss.draw`: a random order of the patches for each site: name -> (num_windows, n).

    Raises:
        ValueError: `num_patches` is below 2.
    """
    if num_patches < 2:
        raise ValueError(f"num_patches must be at least 2, got {num_patches}")
    counts = {site.name: (site.num_windows, math.prod(site.query_grid or site.grid)) for site in facts.sites}
    return {name: torch.rand(count, generator=rng).argsort(1) for name, count in counts.items()}


def attention_entropy(ctx: SynthContext, *, num_patches: int = 64) -> Tensor:
    """Return -½ log(2πe · var) of the cosine similarities of attention rows, mean over layers and windows.

    This is the negative entropy of a normal distribution with that variance. From MaskAQ (arXiv 2606.04373), after its
    published code: rows are scores before the softmax, averaged over heads, without prefix tokens. The similarities are those
    of all pairs among the first `num_patches` patches of a random order; pruned patches are skipped. The published code draws
    the patches at each step, this one once per view.

    Args:
        ctx: recorded `.qk` of all sites.
        num_patches: patches to compare, at least 2.

    Returns:
        (B,)
    """
    layers: list[Tensor] = []
    for site in ctx.sites:
        skip = site.num_prefix_tokens
        scores = ctx.recorded[f"{site.name}.qk"].mean(1)[:, skip:, skip:]  # (B·windows, n, n)
        patches = first_in_order(ctx.drawn["attention_entropy"][site.name].flatten(0, 1), ctx.kept_tokens, num_patches)
        rows = normalize(scores.gather(1, patches[:, :, None].expand(-1, -1, scores.shape[-1])), dim=-1, eps=1e-6)
        variance = (rows @ rows.mT).flatten(1).var(1, correction=0) + 1e-8
        entropy = 0.5 * (2 * math.pi * math.e * variance).log()
        layers.append(-entropy.view(len(ctx.images), -1).mean(1))
    return torch.stack(layers).mean(0)


def first_in_order(order: Tensor, kept_tokens: Tensor | None, count: int) -> Tensor:
    """Return the first `count` patches of an order (B, n), as indices into the patches of the pass, (B, count).

    With `kept_tokens` (B, k), only these patches are in the pass, in this order; None: all n.
    """
    if kept_tokens is None:
        return order[:, :count]
    ranks = order.argsort(1).gather(1, kept_tokens)  # (B, k), the rank of each kept patch in the order
    return ranks.argsort(1)[:, :count]
