"""LeViT: a stem of convolutions, attention with biases by distance, downsampling by attention, BatchNorm beside every layer."""

from functools import partial
from itertools import accumulate
from typing import Any, final

import torch
from einops import rearrange
from timm.models.levit import (
    Attention,
    AttentionDownsample,
    ConvNorm,
    Levit,
    LevitDistilled,
    LinearNorm,
    NormLinear,
    Stem8,
    Stem16,
)
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vitdfq.models.attention import OpenedSite, swap
from vitdfq.models.family import AttentionSite, BatchNormSite, Family, Projections, Rows, Unit


class OpenedLevitSite(OpenedSite):
    """The sizes and the biases by distance that both kinds of LeViT's attention have."""

    attention_bias_idxs: Tensor

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads, self.scale = attention.num_heads, attention.scale
        self.key_dim, self.val_dim = attention.key_dim, attention.val_dim
        height, width = attention.resolution
        self.resolution, self.stride = (height, width), getattr(attention, "stride", 1)
        self.attention_biases = attention.attention_biases  # (heads, distances)
        self.register_buffer("attention_bias_idxs", attention.attention_bias_idxs, persistent=False)  # (queries, keys)

    def score_bias(self) -> Tensor:
        """Return (1, heads, queries, keys). Not cached as in timm: a cache goes stale when weights are loaded after a pass."""
        return self.attention_biases[:, self.attention_bias_idxs][None]

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, N, heads * width) -> (B, heads, N, width)."""
        return rearrange(x, "b n (heads width) -> b heads n width", heads=self.num_heads)


@final
class OpenedLevitAttention(OpenedLevitSite):
    """timm's LeViT `Attention`, opened."""

    def __init__(self, attention: Any) -> None:
        super().__init__(attention)
        self.qkv = attention.qkv
        self.proj = attention.proj  # an activation comes first
        self.attn_drop = nn.Dropout(0.0)
        self.add_places()

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        q, k, v = self.split_heads(self.qkv(x)).split([self.key_dim, self.key_dim, self.val_dim], dim=-1)
        return self.proj(rearrange(self.attend(q, k, v, self.score_bias()), "b heads n width -> b n (heads width)"))


@final
class OpenedLevitDownsample(OpenedLevitSite):
    """timm's LeViT `AttentionDownsample`, opened: queries are every second token of each second row."""

    def __init__(self, attention: Any) -> None:
        super().__init__(attention)
        self.kv = attention.kv
        self.q = attention.q  # drops tokens first
        self.proj = attention.proj
        self.attn_drop = nn.Dropout(0.0)
        self.add_places()

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, queries, C of the next stage)."""
        k, v = self.split_heads(self.kv(x)).split([self.key_dim, self.val_dim], dim=-1)
        q = self.split_heads(self.q(x))
        return self.proj(rearrange(self.attend(q, k, v, self.score_bias()), "b heads n width -> b n (heads width)"))


class _Contiguous(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].contiguous()


@final
class ContiguousGradient(nn.Module):
    """Identity whose gradient is contiguous.

    Behind the stem channels come last. The gradient of a batch of one then has strides that torch's BatchNorm2d (2.15, CPU)
    misreads, and the gradient of the image is silently wrong.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _Contiguous.apply(x)  # pyright: ignore[reportReturnType]


OPENED = {Attention: OpenedLevitAttention, AttentionDownsample: OpenedLevitDownsample}


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
        return rearrange(model.stem(x), "b channels rows columns -> b (rows columns) channels")

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
    """Return the attentions in order of depth, those that drop tokens among them, each at another depth."""
    sites = []
    for depth, (name, attention) in enumerate(_attentions(model)):
        height, width = (-(-side // attention.stride) for side in attention.resolution)
        sites.append(
            AttentionSite(
                name=name,
                depth=depth,
                num_heads=attention.num_heads,
                grid=attention.resolution,
                num_prefix_tokens=0,
                num_windows=1,
                class_row=False,
                query_grid=(height, width) if attention.stride > 1 else None,
            )
        )
    return sites


def projections(model: Any) -> list[Projections]:
    """Return what writes queries, keys and values. An activation stands before `proj`, so nothing can be undone there."""
    sites = []
    for name, attention in _attentions(model):
        heads, key_dim, val_dim = attention.num_heads, attention.key_dim, attention.val_dim
        if isinstance(attention, OpenedLevitAttention):
            writer = f"{name}.qkv"
            queries, keys, values = _rows(f"{writer}.linear", heads, key_dim, key_dim, val_dim)
        else:
            writer = f"{name}.q.ln"
            (queries,) = _rows(f"{writer}.linear", heads, key_dim)
            keys, values = _rows(f"{name}.kv.linear", heads, key_dim, val_dim)
        if not isinstance(model.get_submodule(f"{writer}.bn"), nn.Identity):
            queries = None  # BatchNorm scales each channel before the scores
        sites.append(Projections(queries, keys, values, shifts=True, reader=None))
    return sites


def _rows(linear: str, heads: int, *widths: int) -> list[Rows]:
    """Rows of parts of these widths that follow each other within each head."""
    return [
        Rows(linear, tuple(head * sum(widths) + start + i for head in range(heads) for i in range(width)))
        for start, width in zip(accumulate(widths, initial=0), widths, strict=False)
    ]


def _attentions(model: nn.Module) -> list[tuple[str, OpenedLevitSite]]:
    """(name, attention) in order of execution: a stage registers its downsampling before its blocks."""
    return [(name, part) for name, part in model.named_modules() if isinstance(part, OpenedLevitSite)]


def batch_norms(model: nn.Module) -> list[BatchNormSite]:
    """Return every BatchNorm: behind a convolution or a linear layer in the body, before the linear layer in the heads."""
    return [
        BatchNormSite(f"{name}.bn", f"{name}.linear", follows=type(part) is not NormLinear)
        for name, part in model.named_modules()
        if type(part) in (ConvNorm, LinearNorm, NormLinear) and isinstance(part.bn, _BatchNorm)
    ]


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
    attentions=tuple(OPENED),
    units=units,
    attention_sites=attention_sites,
    projections=projections,
    image_size=image_size,
    final_norm=None,
    batch_norms=batch_norms,
)
