"""ViT, DeiT and their kin: registers, LayerScale, QK-norm, gated and scaled attention, average pooling, two heads."""

import math
from functools import partial
from typing import Any, final

import torch
from timm.layers.attention import Attention
from timm.layers.mlp import GluMlp, Mlp, SwiGLU
from timm.layers.patch_embed import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, ParallelThingsBlock, VisionTransformer
from torch import Tensor, nn

from vitdfq.models.attention import ClassRow, MatMul, Softmax, attend, swap
from vitdfq.models.family import AttentionSite, Family, NormReaders, Projections, Rows, Unit


@final
class OpenedAttention(nn.Module):
    """timm's `Attention`, with its own submodules under their own names, and `qk`, `softmax`, `av` beside them."""

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
        self.qk = MatMul()
        self.softmax = Softmax()
        self.av = MatMul()
        self.class_row = ClassRow()

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
            name=name,
            depth=depth,
            num_heads=attention.num_heads,
            grid=tuple(model.patch_embed.grid_size),
            num_prefix_tokens=model.num_prefix_tokens,
            num_windows=1,
            class_row=model.global_pool == "token",  # where the head averages, the class token says nothing
        )
        for depth, name, attention in _attentions(model)
    ]


def projections(model: Any) -> list[Projections]:
    """Return what writes keys and values: the second and the last third of `qkv`."""
    return [
        Projections(
            *thirds(f"{name}.qkv", attention.num_heads * attention.head_dim),
            shifts=isinstance(attention.k_norm, nn.Identity),
            reader=f"{name}.proj" if isinstance(attention.norm, nn.Identity) and attention.gate is None else None,
        )
        for _, name, attention in _attentions(model)
    ]


def thirds(qkv: str, width: int) -> tuple[Rows, Rows]:
    """The rows of keys and of values where queries, keys and values of all heads follow each other."""
    return Rows(qkv, tuple(range(width, 2 * width))), Rows(qkv, tuple(range(2 * width, 3 * width)))


def _attentions(model: Any) -> list[tuple[int, str, Any]]:
    """(index of the block, name, attention), in order of depth."""
    return [
        (depth, f"blocks.{depth}.{name}", attention)
        for depth, block in enumerate(model.blocks)
        for name, attention in block.named_modules()
        if isinstance(attention, OpenedAttention)
    ]


def embedded_size(model: Any) -> tuple[int, int]:
    """Return the image size that the patch embedding was built for."""
    height, width = model.patch_embed.img_size
    return height, width


def norm_readers(model: Any) -> list[NormReaders]:
    """Return the norms before attention and MLP, those inside them, and the last one; norms of q and k feed no linear layer.

    A block of another kind, such as one that normalises after attention, is left out: its norms write into the residual.
    """
    found: list[NormReaders] = []
    for index, block in enumerate(model.blocks):
        name = f"blocks.{index}"
        if type(block) is Block:
            found += _attention_norms(block.norm1, f"{name}.norm1", block.attn, f"{name}.attn")
            found += _mlp_norms(block.norm2, f"{name}.norm2", block.mlp, f"{name}.mlp")
        elif type(block) is ParallelThingsBlock:
            for i, branch in enumerate(block.attns):
                found += _attention_norms(branch.norm, f"{name}.attns.{i}.norm", branch.attn, f"{name}.attns.{i}.attn")
            for i, branch in enumerate(block.ffns):
                found += _mlp_norms(branch.norm, f"{name}.ffns.{i}.norm", branch.mlp, f"{name}.ffns.{i}.mlp")
    return found + _head_norm(model)


def _attention_norms(norm: nn.Module, name: str, attention: Any, path: str) -> list[NormReaders]:
    if type(attention) is not OpenedAttention:
        return []
    readers = [f"{path}.{part}" for part in ("qkv", "gate") if getattr(attention, part) is not None]
    return _site(norm, name, readers) + _site(attention.norm, f"{path}.norm", [f"{path}.proj"] if len(readers) == 1 else [])


def _mlp_norms(norm: nn.Module, name: str, mlp: Any, path: str) -> list[NormReaders]:
    if type(mlp) not in (Mlp, GluMlp, SwiGLU):
        return []
    readers = [f"{path}.{part}" for part in ("fc1", "fc1_g", "fc1_x") if hasattr(mlp, part)]
    return _site(norm, name, readers) + _site(mlp.norm, f"{path}.norm", [f"{path}.fc2"])


def _head_norm(model: Any) -> list[NormReaders]:
    heads = [name for name in ("head", "head_dist") if hasattr(getattr(model, name, None), "weight")]
    distilled = type(model) is VisionTransformerDistilled  # its forward passes fc_norm by
    if not distilled and hasattr(model.fc_norm, "weight"):
        return _site(model.fc_norm, "fc_norm", heads)
    pools_by_attention = getattr(model, "attn_pool", None) is not None
    return [] if pools_by_attention else _site(model.norm, "norm", heads)


def _site(norm: nn.Module, name: str, readers: list[str]) -> list[NormReaders]:
    """One site, or none where nothing reads, or where no norm is (Identity, or a Sequential that `rotate_mlp` put there)."""
    return [NormReaders(name, tuple(readers), shifts=True)] if readers and hasattr(norm, "weight") else []


VIT = Family(
    name="vit",
    examples="ViT, DeiT, DeiT-III, DINOv2",
    matches=matches,
    open=partial(swap, kind=Attention, opened=OpenedAttention),
    units=units,
    attention_sites=attention_sites,
    projections=projections,
    norm_readers=norm_readers,
    token_source="patch_drop",
    image_size=embedded_size,
    final_norm="norm",
)
