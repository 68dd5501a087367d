"""Swin: attention within (shifted) windows, with a relative position bias, and patch merging between stages."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, final

from einops import rearrange, repeat
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, WindowAttention
from torch import Tensor, nn

from vitdfq.models.attention import OpenedSite, swap
from vitdfq.models.family import AttentionSite, Family, NormReaders, Projections, Rotation, Stream, Unit
from vitdfq.models.vit import embedded_size, mlp_sites, thirds

LINEAR_POOLINGS = ("avg", "fast", "fastavg", "")  # they commute with a rotation of the channels


@final
class OpenedWindowAttention(OpenedSite):
    """timm's `WindowAttention`, opened, with its table of biases."""

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
        self.add_places()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B * windows, N, C) -> the same; mask (windows, N, N) keeps apart what the cyclic shift brought together."""
        q, k, v = rearrange(self.qkv(x), "b n (three heads dim) -> three b heads n dim", three=3, heads=self.num_heads)
        mixed = self.attend(q, k, v, self.score_bias(x.shape[0], mask))
        return self.proj_drop(self.proj(rearrange(mixed, "b heads n dim -> b n (heads dim)")))

    def score_bias(self, num_maps: int, mask: Tensor | None) -> Tensor:
        """Return (1, heads, N, N), or with a mask (num_maps, heads, N, N): an image's windows follow each other."""
        table = self.relative_position_bias_table[self.relative_position_index]
        return with_mask(rearrange(table, "queries keys heads -> 1 heads queries keys"), mask, num_maps)


def with_mask(bias: Tensor, mask: Tensor | None, num_maps: int) -> Tensor:
    """Add the mask (windows, N, N) of an image's windows to a bias (1, heads, N, N), repeated to (num_maps, heads, N, N)."""
    if mask is None:
        return bias
    images = num_maps // mask.shape[0]
    return repeat(bias + mask[:, None], "windows heads queries keys -> (images windows) heads queries keys", images=images)


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
    """Return the attentions in order of depth; windows are counted for the image size that the model was built for."""
    return window_sites([(name, block, block.input_resolution) for name, block in named_blocks(model)])


def window_sites(blocks: Sequence[tuple[str, Any, tuple[int, int]]]) -> list[AttentionSite]:
    """Return the attentions of blocks, each (name, block, (height, width) of its tokens), that attend within windows."""
    sites = []
    for depth, (name, block, resolution) in enumerate(blocks):
        (height, width), sides = block.window_size, zip(resolution, block.window_size, strict=True)
        sites.append(
            AttentionSite(
                name=f"{name}.attn",
                depth=depth,
                num_heads=block.attn.num_heads,
                grid=(height, width),
                num_prefix_tokens=0,
                num_windows=math.prod(math.ceil(tokens / window) for tokens, window in sides),  # timm pads an uneven grid
                class_row=False,
            )
        )
    return sites


def projections(model: Any) -> list[Projections]:
    """Return what writes queries, keys and values: the thirds of `qkv`."""
    sites = []
    for name, block in named_blocks(model):
        queries, keys, values = thirds(f"{name}.attn.qkv", block.attn.num_heads * block.attn.key_dim)
        sites.append(Projections(queries, keys, values, shifts=True, reader=f"{name}.attn.proj"))
    return sites


def named_blocks(model: Any) -> list[tuple[str, Any]]:
    """(name, block), in order of depth."""
    return [(f"layers.{i}.blocks.{j}", block) for i, stage in enumerate(model.layers) for j, block in enumerate(stage.blocks)]


def norm_readers(model: Any) -> list[NormReaders]:
    """Return the norms before attention, MLP and patch merging, and the last one; that of the patches feeds the residual."""
    last = last_norm(model)
    return [norm for stream in streams(model) for norm in stream.readers if norm not in last] + last


def last_norm(model: Any) -> list[NormReaders]:
    """Return the last norm, if the classifier reads each of its channels once: catavgmax feeds it twice."""
    return _head_norm(model) if model.head.global_pool.feat_mult() == 1 else []


def _head_norm(model: Any) -> list[NormReaders]:
    """Return the last norm and the classifier that reads it; nothing without a classifier, or with a matrix behind the norm."""
    reads = hasattr(model.head.fc, "weight") and hasattr(model.norm, "weight")
    return [NormReaders("norm", ("head.fc",), shifts=True)] if reads else []


def streams(model: Any) -> list[Stream]:
    """Return the stream of each stage: a patch merging reads four tokens of one side by side and writes the next.

    None is centered: centering each of the four tokens would change their joint mean and variance.
    """
    writers = ["patch_embed.proj" if isinstance(model.patch_embed.norm, nn.Identity) else "patch_embed.norm"]
    width, readers, stages = len(model.patch_embed.proj.weight), [], []
    for i, stage in enumerate(model.layers):
        merge = f"layers.{i}.downsample"
        if not isinstance(stage.downsample, nn.Identity):
            readers.append(NormReaders(f"{merge}.norm", (f"{merge}.reduction",), shifts=True))
            stages.append(Stream(width, tuple(writers), (), tuple(readers), exit=None, centered=False))
            width, writers, readers = len(stage.downsample.reduction.weight), [f"{merge}.reduction"], []
        for j, block in enumerate(stage.blocks):
            name = f"layers.{i}.blocks.{j}"
            writers += [f"{name}.attn.proj", f"{name}.mlp.fc2"]
            readers.append(NormReaders(f"{name}.norm1", (f"{name}.attn.qkv",), shifts=not _pads(block)))
            readers.append(NormReaders(f"{name}.norm2", (f"{name}.mlp.fc1",), shifts=True))
    last = _head_norm(model) if model.head.global_pool.pool_type in LINEAR_POOLINGS else []
    exit = None if last else "norm"
    return [*stages, Stream(width, tuple(writers), (), (*readers, *last), exit=exit, centered=False)]


def _pads(block: Any) -> bool:
    """Return whether timm fills this block's grid up to whole windows, behind norm1; at free image sizes it might."""
    uneven = any(tokens % window for tokens, window in zip(block.input_resolution, block.window_size, strict=True))
    return uneven or block.dynamic_mask


def why_not(model: Any) -> str | None:
    """Return what prevents every rotation."""
    if any(type(block) is not SwinTransformerBlock for _, block in named_blocks(model)):
        return f"works on the blocks of Swin (version 1) only, not on this {type(model).__name__}"
    return None


SWIN = Family(
    name="swin",
    examples="Swin (version 1)",
    matches=matches,
    open=partial(swap, kind=WindowAttention, opened=OpenedWindowAttention),
    attentions=(WindowAttention,),
    units=units,
    attention_sites=attention_sites,
    projections=projections,
    image_size=embedded_size,
    final_norm="norm",
    norm_readers=norm_readers,
    mlp_sites=mlp_sites,
    rotation=Rotation(streams=streams, why_not=why_not),
)
