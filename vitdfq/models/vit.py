"""ViT, DeiT and their kin: registers, LayerScale, QK-norm, gated and scaled attention, average pooling, two heads."""

import math
from functools import partial
from typing import Any, final

import torch
from timm.layers.attention import Attention
from timm.layers.patch_embed import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitdfq.models.attention import MatMul, Softmax, attend, swap
from vitdfq.models.family import AttentionSite, Family, Unit


@final
class OpenedAttention(nn.Module):
    """timm's `Attention`, with its own submodules under their own names, and `qk`, `softmax`, `av` beside them."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = attention.num_heads, attention.head_dim, attention.scale
        self.qkv = attention.qkv
        self.q_norm = attention.q_norm
        self.k_norm = attention.k_norm
        self.attn_drop = attention.attn_drop
        self.norm = getattr(attention, "norm", nn.Identity())  # of the output
        self.gate = getattr(attention, "gate", None)  # not in every timm version
        self.proj = attention.proj
        self.proj_drop = attention.proj_drop
        self.qk = MatMul()
        self.softmax = Softmax()
        self.av = MatMul()

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> (B, N, C); the mask (boolean: True may attend, or added to the scores) is as in timm's Block."""
        heads = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))  # (B, N, 3, heads, head_dim)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind()
        x_out = attend(self, self.q_norm(q), self.k_norm(k), v, score_bias(q, attn_mask, is_causal))
        x_out = self.norm(x_out.transpose(1, 2).flatten(2))
        if self.gate is not None:
            x_out = x_out * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(x_out))


def score_bias(q: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor | None:
    """Return what a mask adds to the scores of queries (B, heads, N, head_dim); causal wins, as in timm."""
    if is_causal:
        return q.new_full((q.shape[-2], q.shape[-2]), -math.inf).triu(1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        return torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill(~attn_mask, -math.inf)
    return attn_mask


def matches(model: Any) -> bool:
    # Exact types: a subclass, or a convolutional stem as embedding, may have another forward than the chain below.
    is_vit = type(model) in (VisionTransformer, VisionTransformerDistilled)
    return is_vit and type(model.patch_embed) is PatchEmbed


def units(model: Any) -> list[Unit]:
    """Return "embed", "blocks.0" ..., "head" (final norm, pooling and classifiers)."""

    def embed(x: Tensor) -> Tensor:
        return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))

    def block(index: int, x: Tensor) -> Tensor:
        return model.blocks[index](x)

    def head(x: Tensor) -> Tensor:
        return model.forward_head(model.norm(x))

    last = [getattr(model, name, None) for name in ("norm", "fc_norm", "head_drop", "head", "head_dist")]
    return [
        Unit("embed", embed, (model.patch_embed, model.pos_drop, model.patch_drop, model.norm_pre)),
        *(Unit(f"blocks.{i}", partial(block, i), (model.blocks[i],)) for i in range(len(model.blocks))),
        Unit("head", head, tuple(module for module in last if module is not None)),
    ]


def attention_sites(model: Any) -> list[AttentionSite]:
    """Return the attentions in order of depth; a block of parallel attentions has several."""
    return [
        AttentionSite(
            name=f"blocks.{depth}.{name}",
            depth=depth,
            num_heads=attention.num_heads,
            grid=tuple(model.patch_embed.grid_size),
            num_prefix_tokens=model.num_prefix_tokens,
            num_windows=1,
            class_row=model.global_pool == "token",  # where the head averages, the class token says nothing
        )
        for depth, block in enumerate(model.blocks)
        for name, attention in block.named_modules()
        if isinstance(attention, OpenedAttention)
    ]


VIT = Family(
    name="vit",
    examples="ViT, DeiT, DeiT-III, DINOv2",
    matches=matches,
    open=partial(swap, kind=Attention, opened=OpenedAttention),
    units=units,
    attention_sites=attention_sites,
)
