"""Swin v2 as timm trained it first ("CR"): cosine attention, biases from an MLP, norms behind attention and MLP."""

import math
from functools import partial
from typing import Any, final

from einops import rearrange
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr, WindowMultiHeadAttention
from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq.models.attention import OpenedSite, keep_in_float, swap
from vitdfq.models.family import AttentionSite, Family, MlpSite, NormReaders, Projections, Rotation, Unit, absent, nothing
from vitdfq.models.swin import window_sites, with_mask
from vitdfq.models.swin_v2 import MAX_SCALE, why_not_streams
from vitdfq.models.vit import embedded_size, thirds
from vitdfq.models.vit_blocks import MLPS


@final
class OpenedCrAttention(OpenedSite):
    """timm's `WindowMultiHeadAttention`, opened. Queries and keys are quantized as unit vectors, before the learned scale."""

    relative_coordinates_log: Tensor

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads, self.scale = attention.num_heads, 1.0
        self.key_dim = attention.in_features // attention.num_heads
        self.qkv = attention.qkv
        self.attn_drop = attention.attn_drop
        self.proj = attention.proj
        self.proj_drop = attention.proj_drop
        self.meta_mlp = attention.meta_mlp
        keep_in_float(self.meta_mlp)  # it reads coordinates, not the image
        self.logit_scale = attention.logit_scale  # (heads,), logarithms
        self.register_buffer("relative_coordinates_log", attention.relative_coordinates_log, persistent=False)  # (N · N, 2)
        self.add_places()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B * windows, N, C) -> the same; mask (windows, N, N) keeps apart what the cyclic shift brought together."""
        q, k, v = rearrange(self.qkv(x), "b n (three heads dim) -> three b heads n dim", three=3, heads=self.num_heads)
        gain = self.logit_scale.clamp(max=math.log(MAX_SCALE)).exp()[:, None, None]
        biases = self.meta_mlp(self.relative_coordinates_log)
        bias = rearrange(biases, "(queries keys) heads -> 1 heads queries keys", queries=x.shape[1])
        mixed = self.attend(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, with_mask(bias, mask, x.shape[0]), gain)
        return self.proj_drop(self.proj(rearrange(mixed, "b heads n dim -> b n (heads dim)")))


def matches(model: nn.Module) -> bool:
    return type(model) is SwinTransformerV2Cr


def units(model: Any) -> list[Unit]:
    """Return "embed", then of each stage "stages.i.downsample" (if it has one) and "stages.i.blocks.j", then "head".

    Channels are last between the units, and first, as timm's head takes them, behind the last block.
    """

    def embed(x: Tensor) -> Tensor:
        return model.patch_embed(x).permute(0, 2, 3, 1)

    def downsample(stage: int, x: Tensor) -> Tensor:
        return model.stages[stage].downsample(x)

    def block(stage: int, index: int, x: Tensor) -> Tensor:
        x = model.stages[stage].blocks[index](x)
        is_last = stage == len(model.stages) - 1 and index == len(model.stages[stage].blocks) - 1
        return x.permute(0, 3, 1, 2) if is_last else x

    chain = [Unit("embed", embed, (model.patch_embed,))]
    for i, stage in enumerate(model.stages):
        if not isinstance(stage.downsample, nn.Identity):
            chain.append(Unit(f"stages.{i}.downsample", partial(downsample, i), (stage.downsample,)))
        for j in range(len(stage.blocks)):
            chain.append(Unit(f"stages.{i}.blocks.{j}", partial(block, i, j), (stage.blocks[j],)))
    return [*chain, Unit("head", lambda x: model.forward_head(x), (model.head,))]


def named_blocks(model: Any) -> list[tuple[str, Any]]:
    """(name, block), in order of depth."""
    return [(f"stages.{i}.blocks.{j}", block) for i, stage in enumerate(model.stages) for j, block in enumerate(stage.blocks)]


def attention_sites(model: Any) -> list[AttentionSite]:
    """Return the attentions in order of depth; windows are counted for the image size that the model was built for."""
    return window_sites([(name, block, block.feat_size) for name, block in named_blocks(model)])


def projections(model: Any) -> list[Projections]:
    """Return the thirds of `qkv`. Cosines keep a rotation of queries and keys, but not a shift of the keys."""
    sites = []
    for name, block in named_blocks(model):
        queries, keys, values = thirds(f"{name}.attn.qkv", block.attn.num_heads * block.attn.key_dim)
        sites.append(Projections(queries, keys, values, shifts=False, reader=f"{name}.attn.proj"))
    return sites


def norm_readers(model: Any) -> list[NormReaders]:
    """Return the norms before patch merging; all others write into the residual."""
    merges = [f"stages.{i}.downsample" for i, stage in enumerate(model.stages) if not isinstance(stage.downsample, nn.Identity)]
    return [NormReaders(f"{merge}.norm", (f"{merge}.reduction",), shifts=True) for merge in merges]


def mlp_sites(model: Any) -> list[MlpSite]:
    """Return the hidden layers of the blocks' MLPs, not of those that compute biases."""
    return [MlpSite(f"{name}.mlp.norm", f"{name}.mlp.fc2") for name, block in named_blocks(model) if type(block.mlp) in MLPS]


SWIN_V2_CR = Family(
    name="swin_v2_cr",
    examples="Swin v2 CR",
    matches=matches,
    open=partial(swap, kind=WindowMultiHeadAttention, opened=OpenedCrAttention),
    attentions=(WindowMultiHeadAttention,),
    units=units,
    attention_sites=attention_sites,
    projections=projections,
    image_size=embedded_size,
    final_norm=None,  # it is the last block's own
    norm_readers=norm_readers,
    mlp_sites=mlp_sites,
    rotation=Rotation(streams=absent, why_not=nothing, why_not_streams=why_not_streams),
)
