"""BEiT: relative position biases with rows for the class token, biases beside qkv, scales that are parameters of a block."""

from dataclasses import replace
from functools import partial
from typing import Any, final

import torch
from einops import rearrange
from timm.layers.patch_embed import PatchEmbed
from timm.models.beit import Attention, Beit
from torch import Tensor

from vitdfq.models.attention import OpenedSite, add_side_biases, swap
from vitdfq.models.family import Family, Projections, Unit, with_side_bias
from vitdfq.models.vit import block_chain, block_sites, embedded_size, opened_sites, thirds
from vitdfq.models.vit_blocks import Branch, mlp_branch, mlp_sites, readers_of, scales_of
from vitdfq.models.vit_stream import rotation_of


@final
class OpenedBeitAttention(OpenedSite):
    """timm's BEiT `Attention`, opened, with its table of biases."""

    relative_position_index: Tensor | None

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads, self.scale = attention.num_heads, attention.scale
        self.key_dim = attention.qkv.out_features // (3 * attention.num_heads)
        self.q_bias = attention.q_bias  # beside `qkv`, or None
        self.v_bias = attention.v_bias
        self.relative_position_bias_table = attention.relative_position_bias_table  # (offsets + 3, heads), or None
        self.register_buffer("relative_position_index", attention.relative_position_index, persistent=False)  # (N, N)
        self.qkv = attention.qkv
        self.attn_drop = attention.attn_drop
        self.proj = attention.proj
        self.proj_drop = attention.proj_drop
        self.add_places()

    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C); the shared bias (heads, N, N) is that of all blocks."""
        qkv = add_side_biases(self.qkv(x), self.q_bias, self.v_bias)
        q, k, v = rearrange(qkv, "b n (three heads dim) -> three b heads n dim", three=3, heads=self.num_heads)
        mixed = self.attend(q, k, v, self.score_bias(shared_rel_pos_bias))
        return self.proj_drop(self.proj(rearrange(mixed, "b heads n dim -> b n (heads dim)")))

    def score_bias(self, shared: Tensor | None) -> Tensor | None:
        """Return (1, heads, N, N): the block's own table, and what all blocks share; None for neither."""
        if self.relative_position_bias_table is None:
            return None if shared is None else shared[None]
        table = self.relative_position_bias_table[self.relative_position_index]
        bias = rearrange(table, "queries keys heads -> 1 heads queries keys")
        return bias if shared is None else bias + shared


def matches(model: Any) -> bool:
    return type(model) is Beit and type(model.patch_embed) is PatchEmbed  # a subclass may have another forward


def units(model: Any) -> list[Unit]:
    """Return "embed", "blocks.0" ..., "head" (final norm, pooling and classifier)."""

    def embed(x: Tensor) -> Tensor:
        x = model.patch_embed(x)
        x = torch.cat([model.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        return model.pos_drop(x if model.pos_embed is None else x + model.pos_embed)

    def block(index: int, x: Tensor) -> Tensor:
        shared = None if model.rel_pos_bias is None else model.rel_pos_bias()
        return model.blocks[index](x, shared_rel_pos_bias=shared)

    return block_chain(model, embed, block, (model.patch_embed, model.pos_drop, model.rel_pos_bias))


def projections(model: Any) -> list[Projections]:
    """Return what writes queries, keys and values: the thirds of `qkv`, two of them with a bias beside it."""
    sites = []
    for _, name, attention in opened_sites(model):
        assert isinstance(attention, OpenedBeitAttention)
        queries, keys, values = thirds(f"{name}.qkv", attention.num_heads * attention.key_dim)
        if attention.q_bias is not None:
            queries, values = replace(queries, bias=f"{name}.q_bias"), replace(values, bias=f"{name}.v_bias")
        sites.append(Projections(queries, keys, values, shifts=True, reader=f"{name}.proj"))
    return sites


def branches(model: Any) -> list[Branch]:
    """Return the branches of all blocks, in order of execution."""
    found: list[Branch | None] = []
    for index, block in enumerate(model.blocks):
        name = f"blocks.{index}"
        found.append(Branch(f"{name}.norm1", f"{name}.gamma_1", (f"{name}.attn.qkv",), None, f"{name}.attn.proj"))
        found.append(mlp_branch(block.mlp, f"{name}.norm2", f"{name}.mlp", f"{name}.gamma_2"))
    return [branch for branch in found if branch is not None]


BEIT = Family(
    name="beit",
    examples="BEiT, BEiT v2",
    matches=matches,
    open=partial(swap, kind=Attention, opened=OpenedBeitAttention),
    attentions=(Attention,),
    units=units,
    attention_sites=block_sites,
    projections=projections,
    image_size=embedded_size,
    final_norm="norm",
    norm_readers=lambda model: readers_of(model, branches(model)),
    mlp_sites=mlp_sites,
    layer_scales=lambda model: scales_of(model, branches(model)),
    side_biases=lambda model: with_side_bias(projections(model)),
    rotation=rotation_of(branches),
)
