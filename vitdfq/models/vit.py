"""ViT, DeiT and their kin: registers, LayerScale, QK-norm, gated and scaled attention, average pooling, two heads."""

import math
from functools import partial
from typing import Any, final

import torch
from einops import rearrange
from timm.layers.attention import Attention
from timm.layers.mlp import GluMlp, Mlp, SwiGLU
from timm.layers.patch_embed import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, ParallelThingsBlock, VisionTransformer
from torch import Tensor, nn

from vitdfq.models.attention import OpenedSite, swap
from vitdfq.models.family import (
    AttentionSite,
    Family,
    LayerScaleSite,
    MlpSite,
    NormReaders,
    Projections,
    Rotation,
    Rows,
    Stream,
    Unit,
)

MLPS = (Mlp, GluMlp, SwiGLU)


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
    height, width = model.patch_embed.grid_size
    return [
        AttentionSite(
            name=name,
            depth=depth,
            num_heads=attention.num_heads,
            grid=(height, width),
            num_prefix_tokens=model.num_prefix_tokens,
            num_windows=1,
            class_row=model.global_pool == "token",  # where the head averages, nothing trains the class token's row
        )
        for depth, name, attention in opened_sites(model)
    ]


def projections(model: Any) -> list[Projections]:
    """Return what writes queries, keys and values: the thirds of `qkv`."""
    sites = []
    for _, name, attention in opened_sites(model):
        assert isinstance(attention, OpenedAttention)
        queries, keys, values = thirds(f"{name}.qkv", attention.num_heads * attention.head_dim)
        sites.append(
            Projections(
                queries=queries if isinstance(attention.q_norm, nn.Identity) else None,
                keys=keys,
                values=values,
                shifts=isinstance(attention.k_norm, nn.Identity),
                reader=f"{name}.proj" if isinstance(attention.norm, nn.Identity) and attention.gate is None else None,
            )
        )
    return sites


def thirds(qkv: str, width: int) -> list[Rows]:
    """Return the rows of queries, of keys and of values where those of all heads follow each other."""
    return [Rows(qkv, tuple(range(start, start + width))) for start in (0, width, 2 * width)]


def opened_sites(model: Any) -> list[tuple[int, str, OpenedSite]]:
    """Return (index of the block, name, opened attention), in order of depth."""
    return [
        (depth, f"blocks.{depth}.{name}", attention)
        for depth, block in enumerate(model.blocks)
        for name, attention in block.named_modules()
        if isinstance(attention, OpenedSite)
    ]


def embedded_size(model: Any) -> tuple[int, int]:
    """Return the image size (height, width) that the patch embedding was built for."""
    height, width = model.patch_embed.img_size
    return height, width


def norm_readers(model: Any) -> list[NormReaders]:
    """Return the norms before attention and MLP, those inside them, and the last one; norms of q and k feed no linear layer.

    A block of another kind, such as one that normalizes after attention, is left out: its norms write into the residual.
    """
    sites: list[NormReaders] = []
    for index, block in enumerate(model.blocks):
        name = f"blocks.{index}"
        if type(block) is Block:
            sites += _attention_norms(block.norm1, f"{name}.norm1", block.attn, f"{name}.attn")
            sites += mlp_norms(block.norm2, f"{name}.norm2", block.mlp, f"{name}.mlp")
        elif type(block) is ParallelThingsBlock:
            for i, branch in enumerate(block.attns):
                sites += _attention_norms(branch.norm, f"{name}.attns.{i}.norm", branch.attn, f"{name}.attns.{i}.attn")
            for i, branch in enumerate(block.ffns):
                sites += mlp_norms(branch.norm, f"{name}.ffns.{i}.norm", branch.mlp, f"{name}.ffns.{i}.mlp")
    return sites + head_norm(model)


def _attention_norms(norm: Any, name: str, attention: Any, path: str) -> list[NormReaders]:
    if type(attention) is not OpenedAttention:
        return []
    readers = [f"{path}.{part}" for part in ("qkv", "gate") if getattr(attention, part) is not None]
    return _site(norm, name, readers) + _site(attention.norm, f"{path}.norm", [f"{path}.proj"] if len(readers) == 1 else [])


def mlp_norms(norm: Any, name: str, mlp: Any, path: str) -> list[NormReaders]:
    """Return the norm before an MLP, and the one inside it, if there is one."""
    if type(mlp) not in MLPS:
        return []
    return _site(norm, name, first_linears(mlp, path)) + _site(mlp.norm, f"{path}.norm", [f"{path}.fc2"])


def first_linears(mlp: nn.Module, path: str) -> list[str]:
    """Return the names of the linear layers that read an MLP's input: `fc1`, or the two halves of a SwiGLU."""
    return [f"{path}.{part}" for part in ("fc1", "fc1_g", "fc1_x") if hasattr(mlp, part)]


def head_norm(model: Any) -> list[NormReaders]:
    """Return the norm that the heads read, if it is one of the model's."""
    heads = [name for name in ("head", "head_dist") if hasattr(getattr(model, name, None), "weight")]
    distilled = type(model) is VisionTransformerDistilled  # its forward passes fc_norm by
    if not distilled and hasattr(model.fc_norm, "weight"):
        return _site(model.fc_norm, "fc_norm", heads)
    pools_by_attention = getattr(model, "attn_pool", None) is not None
    return [] if pools_by_attention else _site(model.norm, "norm", heads)


def _site(norm: nn.Module, name: str, readers: list[str]) -> list[NormReaders]:
    """One site, or none where nothing reads, or where no norm is (Identity, or a Sequential that `rotate_mlp` put there)."""
    return [NormReaders(name, tuple(readers), shifts=True)] if readers and hasattr(norm, "weight") else []


def mlp_sites(model: nn.Module) -> list[MlpSite]:
    """Return the hidden layers of timm's MLPs, whatever their activation: GELU, its quick form, a gate."""
    return [MlpSite(f"{name}.norm", f"{name}.fc2") for name, part in model.named_modules() if type(part) in MLPS]


def layer_scales(model: Any) -> list[LayerScaleSite]:
    """Return LayerScale behind attention and behind the MLP of each block."""
    return [
        LayerScaleSite(f"blocks.{index}.{scale}", f"blocks.{index}.{writer}")
        for index, block in enumerate(model.blocks)
        for scale, writer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2"))
        if hasattr(getattr(block, scale, None), "gamma")
    ]


def streams(model: Any) -> list[Stream]:
    """Return the one stream: patches and tokens, what the blocks add to it, and their two norms."""
    writers, readers = ["patch_embed.proj"], []
    for index, block in enumerate(model.blocks):
        name = f"blocks.{index}"
        writers += [f"{name}.attn.proj", f"{name}.mlp.fc2"]
        readers.append(NormReaders(f"{name}.norm1", (f"{name}.attn.qkv",), shifts=True))
        readers.append(NormReaders(f"{name}.norm2", tuple(first_linears(block.mlp, f"{name}.mlp")), shifts=True))
    tokens = [name for name in ("pos_embed", "cls_token", "dist_token", "reg_token") if getattr(model, name, None) is not None]
    return [Stream(model.embed_dim, tuple(writers), tuple(tokens), (*readers, *head_norm(model)))]


def why_not(model: Any) -> str | None:
    """Return what prevents every rotation."""
    if any(type(block) is not Block for block in model.blocks) or not isinstance(model.norm_pre, nn.Identity):
        return f"works on pre-norm ViTs (ViT, DeiT, DINOv2) only, not on this {type(model).__name__}"
    attentions = [block.attn for block in model.blocks]
    if any(attention.gate is not None or not isinstance(attention.norm, nn.Identity) for attention in attentions):
        return "works on ViTs without a gate or norm inside attention only"
    return None


def why_not_streams(model: Any) -> str | None:
    """Return what prevents a rotation of the stream, though heads and MLPs may be rotated."""
    if model.global_pool not in ("token", "avg"):
        return f"works on heads that read one token or the mean only: {model.global_pool!r} pooling depends on the basis"
    if not isinstance(model.patch_embed.norm, nn.Identity):
        return "works on ViTs whose patch embedding has no norm only"
    if not head_norm(model):
        return "works on ViTs whose heads read a norm only"
    return None


VIT = Family(
    name="vit",
    examples="ViT, DeiT, DeiT-III, DINOv2",
    matches=matches,
    open=partial(swap, kind=Attention, opened=OpenedAttention),
    units=units,
    attention_sites=attention_sites,
    projections=projections,
    image_size=embedded_size,
    final_norm="norm",
    token_source="patch_drop",
    norm_readers=norm_readers,
    mlp_sites=mlp_sites,
    layer_scales=layer_scales,
    rotation=Rotation(streams=streams, centered=True, why_not=why_not, why_not_streams=why_not_streams),
)
