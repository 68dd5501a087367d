"""Swin: attention within (shifted) windows, with a relative position bias, and patch merging between stages."""

import math
from functools import partial
from typing import Any, final

from timm.models.swin_transformer import SwinTransformer, WindowAttention
from torch import Tensor, nn

from vitdfq.models.attention import ClassRow, MatMul, Softmax, attend, swap
from vitdfq.models.family import AttentionSite, Family, NormReaders, Projections, Unit
from vitdfq.models.vit import embedded_size, thirds


@final
class OpenedWindowAttention(nn.Module):
    """timm's `WindowAttention`, with its own submodules and bias table, and `qk`, `softmax`, `av` beside them."""

    relative_position_index: Tensor

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads, self.scale = attention.num_heads, attention.scale
        self.key_dim = attention.qkv.out_features // (3 * attention.num_heads)
        self.window_size = tuple(attention.window_size)
        self.relative_position_bias_table = attention.relative_position_bias_table  # (offsets, heads)
        self.register_buffer("relative_position_index", attention.relative_position_index, persistent=False)  # (N, N)
        self.qkv = attention.qkv
        self.attn_drop = attention.attn_drop
        self.proj = attention.proj
        self.proj_drop = attention.proj_drop
        self.qk = MatMul()
        self.softmax = Softmax()
        self.av = MatMul()
        self.class_row = ClassRow()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B * windows, N, C) -> the same; mask (windows, N, N) keeps apart what the cyclic shift brought together."""
        heads = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B * windows, N, 3, heads, head_dim)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind()
        x = attend(self, q, k, v, self.score_bias(x.shape[0], mask))
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))

    def score_bias(self, num_maps: int, mask: Tensor | None) -> Tensor:
        """Return (1, heads, N, N), or with a mask (num_maps, heads, N, N): an image's windows follow each other."""
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None]
        if mask is None:
            return bias
        return (bias + mask[:, None]).repeat(num_maps // mask.shape[0], 1, 1, 1)


def matches(model: nn.Module) -> bool:
    return type(model) is SwinTransformer  # a subclass may have another forward than the chain below


def units(model: Any) -> list[Unit]:
    """Return "embed", then of each stage "layers.i.downsample" (if it has one) and "layers.i.blocks.j", then "head"."""

    def embed(x: Tensor) -> Tensor:
        return model.patch_embed(x)

    def downsample(stage: int, x: Tensor) -> Tensor:
        return model.layers[stage].downsample(x)

    def block(stage: int, index: int, x: Tensor) -> Tensor:
        return model.layers[stage].blocks[index](x)

    def head(x: Tensor) -> Tensor:
        return model.forward_head(model.norm(x))

    chain = [Unit("embed", embed, (model.patch_embed,))]
    for i, stage in enumerate(model.layers):
        if not isinstance(stage.downsample, nn.Identity):
            chain.append(Unit(f"layers.{i}.downsample", partial(downsample, i), (stage.downsample,)))
        for j in range(len(stage.blocks)):
            chain.append(Unit(f"layers.{i}.blocks.{j}", partial(block, i, j), (stage.blocks[j],)))
    return [*chain, Unit("head", head, (model.norm, model.head))]


def attention_sites(model: Any) -> list[AttentionSite]:
    """Return the attentions in order of depth; windows are counted for the model's own image size."""
    return [
        AttentionSite(
            name=name,
            depth=depth,
            num_heads=block.attn.num_heads,
            grid=tuple(block.window_size),
            num_prefix_tokens=0,
            num_windows=math.prod(
                math.ceil(tokens / window)  # timm pads a grid that the windows do not divide
                for tokens, window in zip(block.input_resolution, block.window_size, strict=True)
            ),
            class_row=False,
        )
        for depth, (name, block) in enumerate(_attentions(model))
    ]


def projections(model: Any) -> list[Projections]:
    """Return what writes keys and values: the second and the last third of `qkv`."""
    return [
        Projections(*thirds(f"{name}.qkv", block.attn.num_heads * block.attn.key_dim), shifts=True, reader=f"{name}.proj")
        for name, block in _attentions(model)
    ]


def _attentions(model: Any) -> list[tuple[str, Any]]:
    """(name of an attention, its block), in order of depth."""
    return [
        (f"layers.{i}.blocks.{j}.attn", block) for i, stage in enumerate(model.layers) for j, block in enumerate(stage.blocks)
    ]


def norm_readers(model: Any) -> list[NormReaders]:
    """Return the norms before attention, MLP and patch merging, and the last one; that of the patches feeds the residual."""
    found = []
    for i, stage in enumerate(model.layers):
        if hasattr(stage.downsample, "reduction"):
            name = f"layers.{i}.downsample"
            found.append(NormReaders(f"{name}.norm", (f"{name}.reduction",), shifts=True))
        for j, block in enumerate(stage.blocks):
            name = f"layers.{i}.blocks.{j}"
            # timm pads a grid that the windows do not divide, between norm1 and qkv
            divides = all(tokens % window == 0 for tokens, window in zip(block.input_resolution, block.window_size, strict=True))
            found.append(NormReaders(f"{name}.norm1", (f"{name}.attn.qkv",), shifts=divides))
            found.append(NormReaders(f"{name}.norm2", (f"{name}.mlp.fc1",), shifts=True))
    if hasattr(model.head.fc, "weight") and model.head.global_pool.feat_mult() == 1:  # catavgmax feeds each channel twice
        found.append(NormReaders("norm", ("head.fc",), shifts=True))
    return found


SWIN = Family(
    name="swin",
    examples="Swin (version 1)",
    matches=matches,
    open=partial(swap, kind=WindowAttention, opened=OpenedWindowAttention),
    units=units,
    attention_sites=attention_sites,
    projections=projections,
    norm_readers=norm_readers,
    image_size=embedded_size,
    final_norm="norm",
)
