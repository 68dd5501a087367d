"""RelPos-ViT: a ViT without position embeddings, with biases of the scores by offset or from an MLP over log coordinates."""

from typing import Any, final

import torch
from einops import rearrange
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed_rel import RelPosMlp
from timm.models.vision_transformer_relpos import RelPosAttention, RelPosBlock, VisionTransformerRelPos
from torch import Tensor, nn

from vitdfq.models.attention import OpenedSite, keep_in_float, swap
from vitdfq.models.family import Family, MlpSite, Projections, Unit
from vitdfq.models.vit import block_chain, block_sites, embedded_size, fused_projections, opened_sites
from vitdfq.models.vit_blocks import MLPS, Branch, mlp_branch, readers_of, scales_of
from vitdfq.models.vit_stream import rotation_of


@final
class OpenedRelPosAttention(OpenedSite):
    """timm's `RelPosAttention`, opened."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads, self.scale = attention.num_heads, attention.scale
        self.key_dim = attention.head_dim
        self.qkv = attention.qkv
        self.q_norm = attention.q_norm
        self.k_norm = attention.k_norm
        self.rel_pos = attention.rel_pos  # or None: all blocks share one
        self.attn_drop = attention.attn_drop
        self.proj = attention.proj
        self.proj_drop = attention.proj_drop
        self.add_places()

    def forward(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C); the shared bias (1, heads, N, N) stands for the block's own."""
        q, k, v = rearrange(self.qkv(x), "b n (three heads dim) -> three b heads n dim", three=3, heads=self.num_heads)
        bias = shared_rel_pos if self.rel_pos is None else self.rel_pos.get_bias()
        mixed = self.attend(self.q_norm(q), self.k_norm(k), v, bias)
        return self.proj_drop(self.proj(rearrange(mixed, "b heads n dim -> b n (heads dim)")))


def matches(model: Any) -> bool:
    return type(model) is VisionTransformerRelPos and type(model.patch_embed) is PatchEmbed


def open_attentions(model: nn.Module) -> None:
    """Swap the attentions; the MLPs that compute biases read coordinates, not the image, and stay in float."""
    swap(model, RelPosAttention, OpenedRelPosAttention)
    for part in list(model.modules()):
        if type(part) is RelPosMlp:
            keep_in_float(part)


def units(model: Any) -> list[Unit]:
    """Return "embed", "blocks.0" ..., "head" (final norm, pooling and classifier)."""

    def embed(x: Tensor) -> Tensor:
        x = model.patch_embed(x)
        return x if model.cls_token is None else torch.cat([model.cls_token.expand(x.shape[0], -1, -1), x], dim=1)

    def block(index: int, x: Tensor) -> Tensor:
        shared = None if model.shared_rel_pos is None else model.shared_rel_pos.get_bias()
        return model.blocks[index](x, shared_rel_pos=shared)

    return block_chain(model, embed, block, (model.patch_embed, model.shared_rel_pos))


def projections(model: Any) -> list[Projections]:
    """Return what writes queries, keys and values: the thirds of `qkv`."""
    sites = []
    for _, name, attention in opened_sites(model):
        assert isinstance(attention, OpenedRelPosAttention)
        sites.append(fused_projections(name, attention, reader=f"{name}.proj"))
    return sites


def branches(model: Any) -> list[Branch]:
    """Return the branches of all blocks; norms behind attention and MLP write into the residual and are left out."""
    found: list[Branch | None] = []
    for index, block in enumerate(model.blocks):
        if type(block) is RelPosBlock:
            name = f"blocks.{index}"
            found.append(Branch(f"{name}.norm1", f"{name}.ls1", (f"{name}.attn.qkv",), None, f"{name}.attn.proj"))
            found.append(mlp_branch(block.mlp, f"{name}.norm2", f"{name}.mlp", f"{name}.ls2"))
    return [branch for branch in found if branch is not None]


def mlp_sites(model: Any) -> list[MlpSite]:
    """Return the hidden layers of the blocks' MLPs, not of those that compute biases."""
    names = [f"blocks.{index}.mlp" for index, block in enumerate(model.blocks) if type(block.mlp) in MLPS]
    return [MlpSite(f"{name}.norm", f"{name}.fc2") for name in names]


RELPOS = Family(
    name="relpos",
    examples="RelPos-ViT",
    matches=matches,
    open=open_attentions,
    attentions=(RelPosAttention,),
    units=units,
    attention_sites=block_sites,
    projections=projections,
    image_size=embedded_size,
    final_norm="norm",
    norm_readers=lambda model: readers_of(model, branches(model)),
    mlp_sites=mlp_sites,
    layer_scales=lambda model: scales_of(model, branches(model)),
    rotation=rotation_of(branches, RelPosBlock),
)
