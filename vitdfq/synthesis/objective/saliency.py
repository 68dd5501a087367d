"""Where in the image a block looks, as a map (B, h, w) that is not negative and sums to 1 (ACQ-style)."""

import torch
from torch import Tensor

from vitdfq.models.family import AttentionSite
from vitdfq.synthesis.objective.attention_rows import attention_rows, rows_name
from vitdfq.synthesis.objective.context import Pass

LAST_BLOCKS = 3  # of a model without stages
TINY = 1e-8


def saliency_name(site: AttentionSite) -> str:
    """The submodule to listen to for `saliency`: the class token's row, or the block's output where none reads the image.

    Not attention averaged over queries: each Swin window has the same mass of it, so it says little about where.
    """
    return rows_name(site) if site.class_row else site.name.rpartition(".")[0]


def saliency(seen: Pass, site: AttentionSite, kept: Tensor | None = None) -> Tensor:
    """Return the map (B, h, w) of the block of `site`: the class token's attention, or the centered energy of the tokens.

    Where only the patches `kept` (B, k) were shown, nobody looks at the others.
    """
    if site.class_row:
        weights = attention_rows(seen.recorded, site).mean((1, 2))[:, site.num_prefix_tokens :]  # (B, patches)
        if kept is not None:
            weights = weights.new_zeros(len(weights), site.grid[0] * site.grid[1]).scatter(1, kept, weights)
        weights = weights.unflatten(1, site.grid)
    else:
        tokens = seen.recorded[saliency_name(site)]
        if tokens.ndim == 3:  # (B, N, D); Swin keeps (B, h, w, D)
            tokens = tokens[:, site.num_prefix_tokens :].unflatten(1, site.query_grid or site.grid)
        weights = centered_energy(tokens)
    return (weights + TINY) / (weights + TINY).sum((1, 2), keepdim=True)


def centered_energy(tokens: Tensor) -> Tensor:
    """(B, h, w, D) -> (B, h, w). Tokens have a large vector in common that says nothing of where: its energy does not count."""
    return (tokens - tokens.mean((1, 2), keepdim=True)).square().mean(-1)


def center(maps: Tensor, offset: int = 0, flip: bool = False, size: tuple[int, int] | None = None) -> Tensor:
    """Return the centers (B, 2) of maps (B, h, w): (y, x), each from -1 to 1.

    Of images of `size` pixels that were shifted cyclically by `offset` and then flipped, the center is that of the image before:
    what the shift wrapped around the edge counts where it came from.
    """
    centers = []
    for axis, side in enumerate(maps.shape[1:]):
        position = (torch.arange(side, device=maps.device) + 0.5) / side  # of token centers, share of the side
        position = 1 - position if flip and axis == 1 else position
        position = (position - (offset / size[axis] if size else 0)) % 1
        centers.append((maps.sum(2 - axis) * (2 * position - 1)).sum(1))
    return torch.stack(centers, dim=1)


def last_of_stages(sites: list[AttentionSite]) -> list[AttentionSite]:
    """Return the last block of each stage, or the last three blocks where all are of one stage."""
    ends = [site for site, after in zip(sites, [*sites[1:], None], strict=True) if after is None or stage(site) != stage(after)]
    return ends if len(ends) > 1 else sites[-LAST_BLOCKS:]


def stage(site: AttentionSite) -> tuple:
    return site.num_heads, site.grid, site.num_windows
