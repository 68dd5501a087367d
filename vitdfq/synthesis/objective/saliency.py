"""Saliency: which patches a block attends to, as a map (B, h, w) that is non-negative and sums to 1 (ACQ-style)."""

import torch
from torch import Tensor

from vitdfq.models.family import AttentionSite
from vitdfq.synthesis.objective.attention_rows import attention_rows, rows_name
from vitdfq.synthesis.objective.context import Pass

LAST_BLOCKS = 3  # blocks to use of a model without stages
TINY = 1e-8  # keeps a map of zeros a distribution


def saliency_name(site: AttentionSite) -> str:
    """Return the submodule to record for `saliency`: the class token's row, or the block's output without a class token.

    Attention averaged over queries would not do: every Swin window has the same mass of it, whatever the image.
    """
    return rows_name(site) if site.class_row else site.name.rpartition(".")[0]


def saliency(result: Pass, site: AttentionSite, kept_tokens: Tensor | None = None) -> Tensor:
    """Return the saliency map (B, h, w) of a block: the class token's attention, or the centered energy of its tokens.

    Args:
        result: a pass that recorded `saliency_name(site)`.
        site: the attention site of the block.
        kept_tokens: (B, k) indices of the patches in the pass, the others get 0; None: all patches.
    """
    if site.class_row:
        weights = attention_rows(result.recorded, site).mean((1, 2))[:, site.num_prefix_tokens :]  # (B, patches)
        if kept_tokens is not None:
            weights = weights.new_zeros(len(weights), site.grid[0] * site.grid[1]).scatter(1, kept_tokens, weights)
        weights = weights.unflatten(1, site.grid)
    else:
        tokens = result.recorded[saliency_name(site)]
        if tokens.ndim == 3:  # (B, N, D); Swin keeps (B, h, w, D)
            tokens = tokens[:, site.num_prefix_tokens :].unflatten(1, site.query_grid or site.grid)
        weights = centered_energy(tokens)
    return (weights + TINY) / (weights + TINY).sum((1, 2), keepdim=True)


def centered_energy(tokens: Tensor) -> Tensor:
    """(B, h, w, D) -> (B, h, w): mean square of each token after subtraction of the large vector that all tokens share."""
    return (tokens - tokens.mean((1, 2), keepdim=True)).square().mean(-1)


def center(maps: Tensor, offset: int = 0, flip: bool = False, size: tuple[int, int] | None = None) -> Tensor:
    """Return the centers of mass (B, 2) of maps (B, h, w): (y, x), each from -1 to 1.

    For images of `size` pixels that were shifted cyclically by `offset` pixels and then flipped, the center is that of the
    unjittered image: mass that the shift wrapped around the edge counts at its original position.
    """
    centers = []
    for axis, side in enumerate(maps.shape[1:]):
        position = (torch.arange(side, device=maps.device) + 0.5) / side  # of token centers, share of the side
        position = 1 - position if flip and axis == 1 else position
        position = (position - (offset / size[axis] if size else 0)) % 1
        centers.append((maps.sum(2 - axis) * (2 * position - 1)).sum(1))
    return torch.stack(centers, dim=1)


def last_of_stages(sites: list[AttentionSite]) -> list[AttentionSite]:
    """Return the last block of each stage, or the last three blocks of a model without stages."""
    ends = [site for site, after in zip(sites, [*sites[1:], None], strict=True) if after is None or stage(site) != stage(after)]
    return ends if len(ends) > 1 else sites[-LAST_BLOCKS:]


def stage(site: AttentionSite) -> tuple[int, tuple[int, int], int]:
    """Return what the blocks of one stage have in common."""
    return site.num_heads, site.grid, site.num_windows
