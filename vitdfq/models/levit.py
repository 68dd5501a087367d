"""LeViT: a stem of convolutions, attention with biases by distance, downsampling by attention, BatchNorm beside every layer."""

from functools import partial
from typing import Any, final

import torch
from timm.models.levit import Attention, AttentionDownsample, Levit, LevitDistilled, Stem8, Stem16
from torch import Tensor, nn

from vitdfq.models.attention import ClassRow, MatMul, Softmax, attend, swap
from vitdfq.models.family import AttentionSite, Family, NormReaders, Projections, Rows, Unit


@final
class OpenedLevitAttention(nn.Module):
    """timm's LeViT `Attention`, with its own submodules and biases, and `qk`, `softmax`, `av` beside them."""

    attention_bias_idxs: Tensor

    def __init__(self, attention: Any) -> None:
        super().__init__()
        take_over(self, attention)
        self.qkv = attention.qkv
        self.proj = attention.proj  # an activation comes first
        add_places(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        widths = [self.key_dim, self.key_dim, self.val_dim]
        q, k, v = self.qkv(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2).split(widths, dim=-1)  # (B, heads, N, width)
        return self.proj(attend(self, q, k, v, score_bias(self)).transpose(1, 2).flatten(2))


@final
class OpenedLevitDownsample(nn.Module):
    """timm's LeViT `AttentionDownsample`: every second token of each second row asks all of them."""

    attention_bias_idxs: Tensor

    def __init__(self, attention: Any) -> None:
        super().__init__()
        take_over(self, attention)
        self.kv = attention.kv
        self.q = attention.q  # drops tokens first
        self.proj = attention.proj
        add_places(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, queries, C of the next stage)."""
        k, v = self.kv(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2).split([self.key_dim, self.val_dim], dim=-1)
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, queries, key_dim)
        return self.proj(attend(self, q, k, v, score_bias(self)).transpose(1, 2).flatten(2))


class _Contiguous(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].contiguous()


@final
class ContiguousGradient(nn.Module):
    """Identity that lays gradients out as images are.

    Behind a stem, `flatten(2).transpose(1, 2)` hands the gradient of a batch of one back with strides that torch's BatchNorm2d
    (2.15, CPU) misreads: the gradient of the image is silently wrong.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _Contiguous.apply(x)  # pyright: ignore[reportReturnType]


OPENED = {Attention: OpenedLevitAttention, AttentionDownsample: OpenedLevitDownsample}


def take_over(opened: Any, attention: Any) -> None:
    """Give an opened attention the sizes and biases of timm's."""
    opened.num_heads, opened.scale = attention.num_heads, attention.scale
    opened.key_dim, opened.val_dim = attention.key_dim, attention.val_dim
    opened.resolution, opened.stride = tuple(attention.resolution), getattr(attention, "stride", 1)
    opened.attention_biases = attention.attention_biases  # (heads, distances)
    opened.register_buffer("attention_bias_idxs", attention.attention_bias_idxs, persistent=False)  # (queries, keys)


def add_places(opened: Any) -> None:
    """Name the places of an opened attention: after timm's own submodules, whose order `state_dict` keeps."""
    opened.attn_drop = nn.Dropout(0.0)
    opened.qk = MatMul()
    opened.softmax = Softmax()
    opened.av = MatMul()
    opened.class_row = ClassRow()


def score_bias(attention: Any) -> Tensor:
    """Return (1, heads, queries, keys). Not cached as in timm: a cache goes stale when weights are loaded after a pass."""
    return attention.attention_biases[:, attention.attention_bias_idxs][None]


def matches(model: Any) -> bool:
    # Exact types: a subclass or a stem of another kind may have another forward than the chain below.
    return type(model) in (Levit, LevitDistilled) and not model.use_conv and type(model.stem) in (Stem8, Stem16)


def open_attentions(model: Any) -> None:
    for kind, opened in OPENED.items():
        swap(model, kind, opened)
    if not hasattr(model.stem, "gradient"):
        model.stem.add_module("gradient", ContiguousGradient().train(model.training))


def units(model: Any) -> list[Unit]:
    """Return "embed", then of each stage "stages.i.downsample" (if it has one) and "stages.i.blocks.j", then "head"."""

    def embed(x: Tensor) -> Tensor:
        return model.stem(x).flatten(2).transpose(1, 2)

    def downsample(stage: int, x: Tensor) -> Tensor:
        return model.stages[stage].downsample(x)

    def block(stage: int, index: int, x: Tensor) -> Tensor:
        return model.stages[stage].blocks[index](x)

    def head(x: Tensor) -> Tensor:
        return model.forward_head(x)

    chain = [Unit("embed", embed, (model.stem,))]
    for i, stage in enumerate(model.stages):
        if not isinstance(stage.downsample, nn.Identity):
            chain.append(Unit(f"stages.{i}.downsample", partial(downsample, i), (stage.downsample,)))
        for j in range(len(stage.blocks)):
            chain.append(Unit(f"stages.{i}.blocks.{j}", partial(block, i, j), (stage.blocks[j],)))
    heads = [getattr(model, name) for name in ("head", "head_dist") if hasattr(model, name)]
    return [*chain, Unit("head", head, tuple(heads))]


def attention_sites(model: Any) -> list[AttentionSite]:
    """Return the attentions in order of depth, those that drop tokens among them, each at a depth of its own."""
    return [
        AttentionSite(
            name=name,
            depth=depth,
            num_heads=attention.num_heads,
            grid=attention.resolution,
            num_prefix_tokens=0,
            num_windows=1,
            class_row=False,
            query_grid=tuple(-(-side // attention.stride) for side in attention.resolution) if attention.stride > 1 else None,
        )
        for depth, (name, attention) in enumerate(_attentions(model))
    ]


def projections(model: Any) -> list[Projections]:
    """Return what writes keys and values, head by head. An activation stands before `proj`, so nothing can be undone there."""
    found = []
    for name, attention in _attentions(model):
        asks_too = isinstance(attention, OpenedLevitAttention)  # queries are written by the same layer, first in each head
        linear = f"{name}.qkv.linear" if asks_too else f"{name}.kv.linear"
        first = attention.key_dim if asks_too else 0
        width = first + attention.key_dim + attention.val_dim
        starts = [head * width + first for head in range(attention.num_heads)]
        keys = tuple(start + i for start in starts for i in range(attention.key_dim))
        values = tuple(start + attention.key_dim + i for start in starts for i in range(attention.val_dim))
        found.append(Projections(Rows(linear, keys), Rows(linear, values), shifts=True, reader=None))
    return found


def _attentions(model: nn.Module) -> list[tuple[str, Any]]:
    """(name, attention) in order of execution: a stage registers its downsampling before its blocks."""
    return [(name, part) for name, part in model.named_modules() if isinstance(part, tuple(OPENED.values()))]


def norm_readers(model: Any) -> list[NormReaders]:
    """There are none: BatchNorm is folded by `prepare` instead."""
    return []


def image_size(model: Any) -> tuple[int, int]:
    """Return the first attention's grid times the stem's stride: timm remembers no image size, and no other size runs."""
    first = next(part for part in model.modules() if hasattr(part, "attention_bias_idxs"))
    height, width = (side * model.stem.stride for side in first.resolution)
    return height, width


LEVIT = Family(
    name="levit",
    examples="LeViT, not levit_conv",
    matches=matches,
    open=open_attentions,
    units=units,
    attention_sites=attention_sites,
    projections=projections,
    norm_readers=norm_readers,
    image_size=image_size,
    final_norm=None,
)
