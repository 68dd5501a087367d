"""Where the model looks: one row of attention a head, by the class token or on average."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vitdfq.models.family import AttentionSite


def rows_name(site: AttentionSite) -> str:
    """The submodule to listen to for `attention_rows`: where a class token reads the image, its row is enough."""
    return f"{site.name}.class_row" if site.class_row else f"{site.name}.softmax"


def attention_rows(recorded: Mapping[str, Tensor], site: AttentionSite) -> Tensor:
    """Return (B, num_windows, H, N): the class token's row, or the mean over query rows where none reads the image."""
    attention = recorded[rows_name(site)]
    rows = attention if site.class_row else attention.mean(-2)
    return rows.unflatten(0, (-1, site.num_windows))


def spread_of_rows(recorded: Mapping[str, Tensor], site: AttentionSite) -> Tensor:
    """Return (B, num_windows, H, N): the variance of the rows whose mean `attention_rows` returns."""
    return recorded[rows_name(site)].var(-2, correction=0).unflatten(0, (-1, site.num_windows))


def of_kept(rows: Tensor, kept: Tensor | None, site: AttentionSite) -> Tensor:
    """Return the part of rows (B, 1, H, N) at the prefix and the kept patches (B, k), these scaled to the mass of all patches."""
    if kept is None:
        return rows
    prefix, patches = rows[..., : site.num_prefix_tokens], rows[..., site.num_prefix_tokens :]
    shown = patches.gather(-1, kept[:, None, None, :].expand(*patches.shape[:-1], -1))
    return torch.cat([prefix, shown * patches.sum(-1, keepdim=True) / shown.sum(-1, keepdim=True)], dim=-1)
