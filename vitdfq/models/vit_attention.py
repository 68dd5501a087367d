"""The attentions of ViTs, opened: in a block, and in a pooling whose query is learned."""

import math
from typing import Any, final

import torch
from einops import rearrange
from torch import Tensor, nn

from vitdfq.models.attention import OpenedSite


@final
class OpenedAttention(OpenedSite):
    """timm's `Attention`, opened: norms of queries, keys and output, and a gate, where timm's has them."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = attention.num_heads, attention.head_dim, attention.scale
        self.key_dim = attention.head_dim
        self.qkv = attention.qkv
        self.q_norm = attention.q_norm
        self.k_norm = attention.k_norm
        self.attn_drop = attention.attn_drop
        self.norm = getattr(attention, "norm", nn.Identity())  # of the output
        self.gate = getattr(attention, "gate", None)  # not in every timm version
        self.proj = attention.proj
        self.proj_drop = attention.proj_drop
        self.add_places()

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> (B, N, C); the mask (boolean: True may attend, or added to the scores) is as in timm's Block."""
        q, k, v = rearrange(self.qkv(x), "b n (three heads dim) -> three b heads n dim", three=3, heads=self.num_heads)
        mixed = self.attend(self.q_norm(q), self.k_norm(k), v, score_bias(q, attn_mask, is_causal))
        mixed = self.norm(rearrange(mixed, "b heads n dim -> b n (heads dim)"))
        if self.gate is not None:
            mixed = mixed * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(mixed))


def score_bias(q: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor | None:
    """Return what a mask adds to the scores of queries (B, heads, N, head_dim); causal wins, as in timm."""
    if is_causal:
        return q.new_full((q.shape[-2], q.shape[-2]), -math.inf).triu(1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        return torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill(~attn_mask, -math.inf)
    return attn_mask


@final
class OpenedLatentPool(OpenedSite):
    """timm's `AttentionPoolLatent` (SigLIP), opened: learned queries read all tokens, and an MLP follows."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = pool.num_heads, pool.head_dim, pool.scale
        self.key_dim = pool.head_dim
        self.latent_len, self.pool = pool.latent_len, pool.pool
        self.pos_embed = pool.pos_embed
        self.latent = pool.latent  # (1, queries, D)
        self.q = pool.q
        self.kv = pool.kv
        self.q_norm = pool.q_norm
        self.k_norm = pool.k_norm
        self.proj = pool.proj
        self.proj_drop = pool.proj_drop
        self.norm = pool.norm
        self.mlp = pool.mlp
        self.attn_drop = nn.Dropout(0.0)
        self.add_places()

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, C), or (B, queries, C) where nothing pools the queries."""
        if self.pos_embed is not None:
            x = x + self.pos_embed
        q = rearrange(self.q(self.latent.expand(x.shape[0], -1, -1)), "b n (heads dim) -> b heads n dim", heads=self.num_heads)
        k, v = rearrange(self.kv(x), "b n (two heads dim) -> two b heads n dim", two=2, heads=self.num_heads)
        mixed = self.attend(self.q_norm(q), self.k_norm(k), v, score_bias(q, attn_mask, is_causal=False))
        pooled = self.proj_drop(self.proj(rearrange(mixed, "b heads n dim -> b n (heads dim)")))
        if self.mlp is not None:
            pooled = pooled + self.mlp(self.norm(pooled))
        if self.pool == "token":
            return pooled[:, 0]
        return pooled.mean(1) if self.pool == "avg" else pooled
