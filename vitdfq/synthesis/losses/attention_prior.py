"""Attention shall look somewhere: each head follows a random prior of its own (SARDFQ's APA)."""

import torch
from torch import Tensor

from vitdfq.models.family import AttentionSite
from vitdfq.synthesis.objective.attention_prior_maps import gaussian_mixture_maps
from vitdfq.synthesis.objective.attention_rows import attention_rows, of_kept, rows_name, spread_of_rows
from vitdfq.synthesis.objective.context import Draws, SynthContext, TeacherFacts


def deeper_half(sites: list[AttentionSite]) -> list[AttentionSite]:
    num_blocks = 1 + max(site.depth for site in sites)
    return [site for site in sites if site.depth >= num_blocks // 2]


def deep_attention(facts: TeacherFacts) -> list[str]:
    return [rows_name(site) for site in deeper_half(facts.sites)]


def draw_priors(
    rng: torch.Generator,
    facts: TeacherFacts,
    *,
    max_components: int | None = None,
    mixture: str = "max",
    flatten: str = "softmax",
) -> Draws:
    """Draw a prior for each head (and window) of the deeper half: site name -> (num_windows, H, N), each sums to 1.

    `max_components` defaults to 5 where the class token's row is used and to 1 otherwise.
    """
    priors = {}
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
    """Give the prefix tokens a share ~ U(0, 1) of the mass; several (distillation, registers) split it at random."""
    if num_prefix_tokens == 0:
        return patches
    share = torch.rand(len(patches), 1, generator=rng)
    parts = torch.rand(len(patches), num_prefix_tokens, generator=rng) + 1e-6
    return torch.cat([share * parts / parts.sum(1, keepdim=True), (1 - share) * patches], dim=1)


def attention_prior(ctx: SynthContext, *, include_cls: bool = True, every_query: bool = False) -> Tensor:
    """Mean squared distance of each head's attention to its prior, summed over the deeper half of the L blocks.

    The attention is the class token's row, or the mean over query rows where no class token reads the image (Swin,
    average pooling). Block i (0-based) weighs (i+1)/L. The mean is over heads, windows and tokens. As described in
    arXiv 2412.16553, whose code is not public; normalisation and priors are from a third-party derivative where the
    paper is silent.

    Args:
        include_cls: compare the prefix tokens too, as the derivative does; False compares patches only, as the paper
            says, with the prior scaled to the attention that patches get.
        every_query: where no class token reads the image, compare the attention of each query, as the derivative does on Swin;
            False compares its mean, as the paper says.

    Returns:
        (B,)
    """
    losses = []
    for site in deeper_half(ctx.sites):
        first = 0 if include_cls else site.num_prefix_tokens
        attention = attention_rows(ctx.recorded, site)[..., first:]  # (B, windows, H, N), as all below
        prior = of_kept(ctx.drawn["attention_prior"][site.name], ctx.kept, site)[..., first:]
        if first:
            prior = prior * (attention.sum(-1, keepdim=True) / prior.sum(-1, keepdim=True).clamp(min=1e-6)).detach()
        distance = (attention - prior).square()
        if every_query and not site.class_row:  # rows are near a prior if their mean is near it and they are near their mean
            distance = distance + spread_of_rows(ctx.recorded, site)[..., first:]
        distance = distance.mean((1, 2, 3))
        losses.append(distance * (site.depth + 1) / ctx.num_blocks)
    return torch.stack(losses).sum(0)
