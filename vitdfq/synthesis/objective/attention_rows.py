"""One row of attention per head: the class token's, or the mean over queries."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vitdfq.models.family import AttentionSite


def rows_name(site: AttentionSite) -> str:
    """Return the submodule to record for `attention_rows`; the class token's row is computed without the full map."""
    return f"{site.name}.class_row" if site.class_row else f"{site.name}.softmax"


def attention_rows(recorded: Mapping[str, Tensor], site: AttentionSite) -> Tensor:
    """Return (B, num_windows, H, N): the class token's row, or the mean over queries where no class token reads the image."""
    attention = recorded[rows_name(site)]
    rows = attention if site.class_row else attention.mean(-2)
    return rows.unflatten(0, (-1, site.num_windows))


def spread_of_rows(recorded: Mapping[str, Tensor], site: AttentionSite) -> Tensor:
    """Return (B, num_windows, H, N): the variance over queries of the rows whose mean `attention_rows` returns."""
    return recorded[rows_name(site)].var(-2, correction=0).unflatten(0, (-1, site.num_windows))


def restrict_to_kept(rows: Tensor, kept_tokens: Tensor | None, site: AttentionSite) -> Tensor:
    """Return rows (B, 1, H, N) at the prefix tokens and the kept patches (B, k), scaled to the mass of all patches.

    Returns:
        (B, 1, H, prefix + k); `rows` unchanged for `kept_tokens` None.
    """
    if kept_tokens is None:
        return rows
    prefix, patches = rows[..., : site.num_prefix_tokens], rows[..., site.num_prefix_tokens :]
    kept = patches.gather(-1, kept_tokens[:, None, None, :].expand(*patches.shape[:-1], -1))
    return torch.cat([prefix, kept * patches.sum(-1, keepdim=True) / kept.sum(-1, keepdim=True)], dim=-1)
