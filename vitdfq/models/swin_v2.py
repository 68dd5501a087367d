"""Swin v2: cosine attention with a learned scale, biases from an MLP over log coordinates, norms behind attention and MLP."""

import math
from dataclasses import replace
from functools import partial
from typing import Any, final

from einops import rearrange
from timm.models.swin_transformer_v2 import SwinTransformerV2, WindowAttention
from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq.models import swin
from vitdfq.models.attention import OpenedSite, add_side_biases, keep_in_float, swap
from vitdfq.models.family import Family, Projections, Rotation, absent, nothing, with_side_bias
from vitdfq.models.vit import embedded_size, thirds
from vitdfq.models.vit_blocks import mlp_sites
from vitdfq.models.vit_stream import POST_NORM

MAX_SCALE = 100.0  # of the cosines
BIAS_RANGE = 16.0


@final
class OpenedCosineAttention(OpenedSite):
    """timm's `WindowAttention` of Swin v2, opened. Queries and keys are quantized as unit vectors, before the learned scale."""

    relative_coords_table: Tensor
    relative_position_index: Tensor

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads, self.scale = attention.num_heads, 1.0
        self.key_dim = attention.dim // attention.num_heads
        self.logit_scale = attention.logit_scale  # (heads, 1, 1), logarithms
        self.q_bias = attention.q_bias  # beside `qkv`, or None
        self.v_bias = attention.v_bias
        self.cpb_mlp = attention.cpb_mlp
        keep_in_float(self.cpb_mlp)  # it reads coordinates, not the image
        self.register_buffer("relative_coords_table", attention.relative_coords_table, persistent=False)
        self.register_buffer("relative_position_index", attention.relative_position_index, persistent=False)  # (N, N)
        self.qkv = attention.qkv
        self.attn_drop = attention.attn_drop
        self.proj = attention.proj
        self.proj_drop = attention.proj_drop
        self.add_places()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B * windows, N, C) -> the same; mask (windows, N, N) keeps apart what the cyclic shift brought together."""
        qkv = add_side_biases(self.qkv(x), self.q_bias, self.v_bias)
        q, k, v = rearrange(qkv, "b n (three heads dim) -> three b heads n dim", three=3, heads=self.num_heads)
        gain = self.logit_scale.clamp(max=math.log(MAX_SCALE)).exp()
        bias = swin.with_mask(self.score_bias(), mask, x.shape[0])
        mixed = self.attend(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, bias, gain)
        return self.proj_drop(self.proj(rearrange(mixed, "b heads n dim -> b n (heads dim)")))

    def score_bias(self) -> Tensor:
        """Return (1, heads, N, N)."""
        table = self.cpb_mlp(self.relative_coords_table).flatten(0, -2)  # (offsets, heads)
        bias = BIAS_RANGE * table.sigmoid()
        return rearrange(bias[self.relative_position_index], "queries keys heads -> 1 heads queries keys")


def matches(model: nn.Module) -> bool:
    return type(model) is SwinTransformerV2  # a subclass may have another forward than Swin's chain


def projections(model: Any) -> list[Projections]:
    """Return the thirds of `qkv`. Cosines keep a rotation of queries and keys, but not a shift of the keys."""
    sites = []
    for name, block in swin.named_blocks(model):
        attention = block.attn
        queries, keys, values = thirds(f"{name}.attn.qkv", attention.num_heads * attention.key_dim)
        if attention.q_bias is not None:
            queries, values = replace(queries, bias=f"{name}.attn.q_bias"), replace(values, bias=f"{name}.attn.v_bias")
        sites.append(Projections(queries, keys, values, shifts=False, reader=f"{name}.attn.proj"))
    return sites


def why_not_streams(model: Any) -> str | None:
    return POST_NORM


SWIN_V2 = Family(
    name="swin_v2",
    examples="Swin v2",
    matches=matches,
    open=partial(swap, kind=WindowAttention, opened=OpenedCosineAttention),
    attentions=(WindowAttention,),
    units=swin.units,
    attention_sites=swin.attention_sites,
    projections=projections,
    image_size=embedded_size,
    final_norm="norm",
    norm_readers=swin.last_norm,  # all others write into the residual
    side_biases=lambda model: with_side_bias(projections(model)),
    mlp_sites=mlp_sites,
    rotation=Rotation(streams=absent, why_not=nothing, why_not_streams=why_not_streams),
)
