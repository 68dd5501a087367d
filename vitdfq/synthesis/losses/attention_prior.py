"""Each attention head follows a random prior: SARDFQ's attention priors alignment (APA)."""

import torch
from torch import Tensor

from vitdfq.models.family import AttentionSite
from vitdfq.synthesis.objective.attention_prior_maps import gaussian_mixture_maps
from vitdfq.synthesis.objective.attention_rows import attention_rows, restrict_to_kept, rows_name, spread_of_rows
from vitdfq.synthesis.objective.context import Draws, SynthContext, TeacherFacts


def deeper_half(sites: list[AttentionSite]) -> list[AttentionSite]:
    """Return the sites of the deeper half of the blocks."""
    num_blocks = 1 + max(site.depth for site in sites)
    return [site for site in sites if site.depth >= num_blocks // 2]


def deep_attention(facts: TeacherFacts) -> list[str]:
    """`Loss.listens`: rows of attention of the deeper half."""
    return [rows_name(site) for site in deeper_half(facts.sites)]


def draw_priors(
    rng: torch.Generator,
    facts: TeacherFacts,
    *,
    max_components: int | None = None,
    mixture: str = "max",
    flatten: str = "softmax",
) -> Draws:
    """`Loss.draw`: a prior for each head and window of the deeper half: site name -> (num_windows, H, N), rows sum to 1.

    Args:
        rng: the random stream.
        facts: of the teacher.
        max_components: Gaussians per map; None: 5 where the class token's row is used, else 1.
        mixture: a key of `attention_prior_maps.MIXTURES`.
        flatten: a key of `attention_prior_maps.FLATTENINGS`.
    """
    priors: Draws = {}
    for site in deeper_half(facts.sites):
        count = site.num_windows * site.num_heads
        patches = gaussian_mixture_maps(
            rng,
            count,
            site.grid,
            max_components=max_components or (5 if site.class_row else 1),
            half_widths=(4, 6, 8) if site.class_row else (1, 2, 3),
            mixture=mixture,
            flatten=flatten,
        )
        prior = _with_prefix(rng, patches, site.num_prefix_tokens)
        priors[site.name] = prior.view(site.num_windows, site.num_heads, -1)
    return priors


def _with_prefix(rng: torch.Generator, patches: Tensor, num_prefix_tokens: int) -> Tensor:
    """Prepend prefix tokens with a share ~ U(0, 1) of the mass, split at random among several (distillation, registers)."""
    if num_prefix_tokens == 0:
        return patches
    share = torch.rand(len(patches), 1, generator=rng)
    parts = torch.rand(len(patches), num_prefix_tokens, generator=rng) + 1e-6
    return torch.cat([share * parts / parts.sum(1, keepdim=True), (1 - share) * patches], dim=1)


def attention_prior(ctx: SynthContext, *, include_cls: bool = True, every_query: bool = False) -> Tensor:
    """Return Σ_i (i + 1) / L · mean (A_i - P_i)², over the deeper half of L blocks, i from 0.

    A_i is the attention of a block and P_i its prior; the mean is over heads, windows and tokens. The attention is the class
    token's row, or the mean over queries where no class token reads the image (Swin, average pooling). Implemented from the
    description in arXiv 2412.16553; normalization and priors, where the paper does not define them, are those of a
    third-party derivative.

    Args:
        ctx: recorded `attention_rows` of the deeper half.
        include_cls: compare the prefix tokens too, as the derivative does. False compares patches only, as the paper does,
            with the prior scaled to the attention that patches get.
        every_query: without a class token, compare the attention of each query, as the derivative does on Swin. False
            compares the mean over queries, as the paper does.

    Returns:
        (B,)
    """
    losses: list[Tensor] = []
    for site in deeper_half(ctx.sites):
        first = 0 if include_cls else site.num_prefix_tokens
        attention = attention_rows(ctx.recorded, site)[..., first:]  # (B, windows, H, N), as all below
        prior = restrict_to_kept(ctx.drawn["attention_prior"][site.name], ctx.kept_tokens, site)[..., first:]
        if first:
            prior = prior * (attention.sum(-1, keepdim=True) / prior.sum(-1, keepdim=True).clamp(min=1e-6)).detach()
        distance = (attention - prior).square()
        if every_query and not site.class_row:  # E(a - p)² = (E a - p)² + var a
            distance = distance + spread_of_rows(ctx.recorded, site)[..., first:]
        distance = distance.mean((1, 2, 3))
        losses.append(distance * (site.depth + 1) / ctx.num_blocks)
    return torch.stack(losses).sum(0)
