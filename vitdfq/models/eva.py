"""EVA, EVA-02, EVA-CLIP, DINOv3, PE, RoPE-ViT: rotary positions, biases beside qkv, scales that are parameters of a block."""

from dataclasses import replace
from functools import partial
from typing import Any, final

import torch
from einops import rearrange
from timm.layers.attention import AttentionRope
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock
from torch import Tensor, nn

from vitdfq.models.attention import OpenedSite, add_side_biases, swap
from vitdfq.models.family import AttentionSite, Family, Projections, Rows, Unit
from vitdfq.models.vit import block_chain, block_sites, embedded_size, opened_sites, pool_projections, pool_sites, thirds
from vitdfq.models.vit_attention import OpenedLatentPool, score_bias
from vitdfq.models.vit_blocks import Branch, mlp_branch, mlp_sites, readers_of, scales_of, token_biases
from vitdfq.models.vit_stream import rotation_of

SEPARATE = ("q_proj", "k_proj", "v_proj")


@final
class OpenedRopeAttention(OpenedSite):
    """timm's `EvaAttention` and `AttentionRope`, opened."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = attention.num_heads, attention.head_dim, attention.scale
        self.key_dim = attention.head_dim
        self.num_kv_groups = getattr(attention, "num_kv_groups", 1)  # heads that share their keys and values
        self.num_prefix_tokens = attention.num_prefix_tokens  # they have no position
        self.turn = partial(apply_rot_embed_cat, half=True) if getattr(attention, "rotate_half", False) else apply_rot_embed_cat
        self.q_bias = getattr(attention, "q_bias", None)  # beside `qkv`, or None
        self.v_bias = getattr(attention, "v_bias", None)
        self.qkv = attention.qkv  # or None, and these three:
        self.q_proj = attention.q_proj
        self.k_proj = attention.k_proj
        self.v_proj = attention.v_proj
        self.q_norm = attention.q_norm
        self.k_norm = attention.k_norm
        self.attn_drop = attention.attn_drop
        self.norm = attention.norm  # of the output
        self.gate = getattr(attention, "gate", None)  # not in every timm version
        self.proj = attention.proj
        self.proj_drop = attention.proj_drop
        self.add_places()

    def forward(self, x: Tensor, rope: Tensor | None = None, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> (B, N, C); rope (patches, 2 head_dim), or (heads, ...), holds the sines and cosines of all positions."""
        q, k, v = self.project(x)
        q, k = self.positioned(self.q_norm(q), rope), self.positioned(self.k_norm(k), rope)
        if self.num_kv_groups > 1:
            k, v = (part.repeat_interleave(self.num_kv_groups, dim=1) for part in (k, v))
        mixed = self.attend(q, k, v, score_bias(q, attn_mask, is_causal))
        mixed = self.norm(rearrange(mixed, "b heads n dim -> b n (heads dim)"))
        if self.gate is not None:
            mixed = mixed * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(mixed))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of tokens (B, N, C), each (B, heads, N, head_dim)."""
        if self.qkv is None:
            written = [getattr(self, name)(x) for name in SEPARATE]
        else:
            written = add_side_biases(self.qkv(x), self.q_bias, self.v_bias).chunk(3, dim=-1)
        q, k, v = (rearrange(part, "b n (heads dim) -> b heads n dim", dim=self.head_dim) for part in written)
        return q, k, v

    def positioned(self, x: Tensor, rope: Tensor | None) -> Tensor:
        """Turn each pair of channels of the patches of x (B, heads, N, head_dim) by an angle of their position."""
        if rope is None:
            return x
        prefix, patches = x[:, :, : self.num_prefix_tokens], x[:, :, self.num_prefix_tokens :]
        return torch.cat([prefix, self.turn(patches, rope)], dim=2).type_as(x)


def matches(model: Any) -> bool:
    return type(model) is Eva and type(model.patch_embed) is PatchEmbed  # a subclass may have another forward


def open_attentions(model: nn.Module) -> None:
    for kind in (EvaAttention, AttentionRope):
        swap(model, kind, OpenedRopeAttention)
    swap(model, AttentionPoolLatent, OpenedLatentPool)


def units(model: Any) -> list[Unit]:
    """Return "embed", "blocks.0" ..., "head" (final norm, pooling and classifier)."""

    def embed(x: Tensor) -> Tensor:
        tokens, _ = model._pos_embed(model.patch_embed(x))
        return model.norm_pre(tokens)

    def block(index: int, x: Tensor) -> Tensor:
        return model.blocks[index](x, rope=rope_of(model, index, x.shape[1]))

    before = ("patch_embed", "pos_drop", "patch_drop", "rope", "norm_pre")
    return block_chain(model, embed, block, [getattr(model, name, None) for name in before])


def rope_of(model: Any, index: int, num_tokens: int) -> Tensor | None:
    """Return the sines and cosines that a block receives, None for a model without rotary positions.

    Raises:
        ValueError: the image has another size than `image_size`: the chain of units does not carry the grid of its patches.
    """
    if model.rope is None:
        return None
    height, width = model.patch_embed.grid_size
    if num_tokens != model.num_prefix_tokens + height * width:
        raise ValueError(f"the chain of units takes images of {height} x {width} patches, not {num_tokens} tokens")
    is_fixed = not model.dynamic_img_size and hasattr(model.rope, "feat_shape")
    rope = model.rope.get_embed() if is_fixed else model.rope.get_embed(shape=(height, width))
    return rope[index] if model.rope_mixed else rope


def attention_sites(model: Any) -> list[AttentionSite]:
    """Return the attentions in order of depth; a pooling by attention comes last."""
    return block_sites(model) + pool_sites(model, model.num_prefix_tokens)


def projections(model: Any) -> list[Projections]:
    """Return what writes queries, keys and values. Rotary positions turn pairs of channels: no other rotation commutes.

    Where heads share their values, nothing is undone in `proj`, which reads each of them several times.
    """
    sites = []
    for _, name, attention in opened_sites(model):
        assert isinstance(attention, OpenedRopeAttention)
        queries, keys, values = _rows(name, attention)
        is_plain = model.rope is None and attention.num_kv_groups == 1
        reads_plain = isinstance(attention.norm, nn.Identity) and attention.gate is None and attention.num_kv_groups == 1
        sites.append(
            Projections(
                queries=queries if is_plain and isinstance(attention.q_norm, nn.Identity) else None,
                keys=keys,
                values=values,
                shifts=model.rope is None and isinstance(attention.k_norm, nn.Identity),
                reader=f"{name}.proj" if reads_plain else None,
            )
        )
    return sites + pool_projections(model)


def side_biases(model: Any) -> list[Rows]:
    """Return the queries and values whose bias stands beside `qkv`."""
    return [rows for _, name, attention in opened_sites(model) for rows in _rows(name, attention) if rows.bias]


def _rows(name: str, attention: Any) -> list[Rows]:
    """Rows of queries, of keys and of values."""
    width = attention.num_heads * attention.head_dim
    if attention.qkv is None:
        widths = (width, width // attention.num_kv_groups, width // attention.num_kv_groups)
        return [Rows(f"{name}.{part}", tuple(range(rows))) for part, rows in zip(SEPARATE, widths, strict=True)]
    queries, keys, values = thirds(f"{name}.qkv", width)
    if attention.q_bias is None:
        return [queries, keys, values]
    return [replace(queries, bias=f"{name}.q_bias"), keys, replace(values, bias=f"{name}.v_bias")]


def branches(model: Any) -> list[Branch]:
    """Return the branches of all blocks; norms behind attention and MLP, as in EVA-02 enormous, write into the residual."""
    found: list[Branch | None] = []
    for index, block in enumerate(model.blocks):
        if type(block) is EvaBlock:
            name = f"blocks.{index}"
            inner = None if block.attn.gate is not None else f"{name}.attn.norm"
            read = tuple(f"{name}.attn.{part}" for part in ("qkv", *SEPARATE, "gate") if getattr(block.attn, part) is not None)
            found.append(Branch(f"{name}.norm1", f"{name}.gamma_1", read, inner, f"{name}.attn.proj"))
            found.append(mlp_branch(block.mlp, f"{name}.norm2", f"{name}.mlp", f"{name}.gamma_2"))
    return [branch for branch in found if branch is not None]


EVA = Family(
    name="eva",
    examples="EVA, EVA-02, EVA-CLIP, DINOv3, PE, RoPE-ViT",
    matches=matches,
    open=open_attentions,
    attentions=(EvaAttention, AttentionRope, AttentionPoolLatent),
    units=units,
    attention_sites=attention_sites,
    projections=projections,
    image_size=embedded_size,
    final_norm="norm",
    norm_readers=lambda model: readers_of(model, branches(model)),
    mlp_sites=mlp_sites,
    layer_scales=lambda model: scales_of(model, branches(model)),
    token_biases=token_biases,
    side_biases=side_biases,
    rotation=rotation_of(branches, EvaBlock),
)
