"""The facts that a family states about its architectures: units, attention, norms, MLPs, what folds and what rotates.

Facts are names of submodules and small numbers, listed for one model. The rooms above do the arithmetic. None of them knows an
architecture by the name of a module.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn


@dataclass(frozen=True)
class Unit:
    """One link of the chain: `model(x) == units[-1].forward(... units[0].forward(x))`.

    `forward` reads the model's submodules at every call, so it uses a module that was swapped in later. `modules` lists the
    submodules at the time of the call; parameters of the model itself (position embedding, class token) are in no unit.
    """

    name: str  # "embed", "blocks.3", "layers.1.downsample", "head"
    forward: Callable[[Tensor], Tensor]
    modules: tuple[nn.Module, ...]  # whose parameters and quantizers belong to this unit


@dataclass(frozen=True)
class AttentionSite:
    """One opened attention and the shape of its maps: `(B * num_windows, num_heads, N, N)`, queries before keys.

    `N = num_prefix_tokens + grid[0] * grid[1]`; the windows of one image follow each other (batch-major). Where there are fewer
    queries than keys, their number is that of `query_grid`, and `.av` has as many tokens.
    """

    name: str  # "blocks.3.attn"; its submodules are "blocks.3.attn.qk", ".softmax", ".av"
    depth: int  # 0-based index of the block
    num_heads: int
    grid: tuple[int, int]  # patch tokens of one map: (14, 14) for ViT-B/16, (7, 7) for one Swin window
    num_prefix_tokens: int  # class, distillation and register tokens in front (0 for Swin)
    num_windows: int  # attention maps per image (1 for ViT)
    class_row: bool  # True: saliency is row 0 (the class token's); False: the mean over all query rows
    query_grid: tuple[int, int] | None = None  # None: queries and keys are the same tokens, as everywhere but in LeViT


@dataclass(frozen=True)
class Rows:
    """The rows of a linear layer's weight that write the queries, the keys or the values of all heads."""

    linear: str  # "blocks.0.attn.qkv"
    rows: tuple[int, ...]  # heads in order, each with the same number of rows
    bias: str | None = None  # a parameter that is added to these rows beside the linear's own bias: "blocks.0.attn.v_bias"


@dataclass(frozen=True)
class Projections:
    """The linear layers before and behind one attention, so that a change of keys, queries or values can be undone."""

    queries: Rows | None  # None: scores change when queries and keys are rotated alike (QK-norm, BatchNorm, RoPE)
    keys: Rows
    values: Rows
    shifts: bool  # softmax ignores a constant that is added to all keys of a head; False: a norm of the keys does not
    reader: str | None  # "blocks.0.attn.proj" where it reads the weighted values as they are: no norm, gate, activation


def with_side_bias(sites: Sequence[Projections]) -> list[Rows]:
    """Return the rows of queries and values that have a bias beside the layer."""
    return [rows for site in sites for rows in (site.queries, site.values) if rows is not None and rows.bias]


@dataclass(frozen=True)
class NormReaders:
    """A norm whose output reaches linear layers and nothing else, so that a change of its affine can be undone in them.

    Between the two stand at most a choice of tokens, or a pooling that commutes with a positive scale per channel.
    """

    norm: str  # "blocks.0.norm1"
    readers: tuple[str, ...]  # "blocks.0.attn.qkv"; all of them
    shifts: bool  # False: only a scale can be undone; zeros are padded in between, and a shift would not reach them


@dataclass(frozen=True)
class MlpSite:
    """The hidden layer of an MLP: what GELU (or a gated unit in its place) writes passes `hidden` and is read by `reader`."""

    hidden: str  # "blocks.0.mlp.norm": a submodule between the two, often Identity
    reader: str  # "blocks.0.mlp.fc2"


@dataclass(frozen=True)
class LayerScaleSite:
    """A factor per channel between the linear layer that writes a branch and the residual stream (arXiv 2103.17239)."""

    scale: str  # "blocks.0.ls1": a submodule with a parameter `gamma`; or "blocks.0.gamma_1": a parameter of the block
    writer: str  # "blocks.0.attn.proj"


@dataclass(frozen=True)
class BatchNormSite:
    """A BatchNorm beside one layer, into which it can be folded."""

    norm: str  # "stem.conv1.bn"
    layer: str  # "stem.conv1.linear"
    follows: bool  # True: it reads what the layer writes; False: only the layer reads what it writes


@dataclass(frozen=True)
class TokenBias:
    """A parameter that is added to what a layer writes, so that it can take a bias that timm's layer does not have."""

    layer: str  # "patch_embed.proj", without bias in CLIP
    tokens: str  # "pos_embed": (1, tokens, width)
    first: int  # the first token that the layer writes; class token and registers stand before it


@dataclass(frozen=True)
class Stream:
    """A residual stream: all that adds to it and all that reads it. A rotation changes both sides and keeps the function."""

    width: int  # channels
    writers: tuple[str, ...]  # linear layers, convolutions and norms whose output is added to it: "patch_embed.proj", "norm_pre"
    tokens: tuple[str, ...]  # parameters (..., width) that are added or prepended to it: "pos_embed", "cls_token"
    readers: tuple[NormReaders, ...]  # a linear layer may read several tokens side by side: in_features is k * width
    exit: str | None  # "norm": behind this norm (or Identity) something reads the stream in its own basis, such as a maximum
    centered: bool  # True: all that reads it are norms of one token, so that under LayerNorms it needs no mean over channels


class EndSites(NamedTuple):
    """The linear layers and convolutions at both ends of a model, by name, in order of execution."""

    embedding: tuple[str, ...]  # the first one reads the image: "patch_embed.proj", or the convolutions of a stem
    head: tuple[str, ...]  # "head", "head_dist"; none where a model gives what it pools


def nothing(model: nn.Module) -> None:
    """Return no reason: nothing prevents it."""
    return None


@dataclass(frozen=True)
class Rotation:
    """How the streams of a family can be rotated; its heads and MLPs follow from `projections` and `mlp_sites`.

    A `why_not` completes the sentence "rotation ..." with "works on ... only", or returns None.
    """

    streams: Callable[[Any], Sequence[Stream]]
    why_not: Callable[[Any], str | None]  # the blocks of this model are of another kind
    why_not_streams: Callable[[Any], str | None] = nothing  # heads and MLPs can be rotated, the stream cannot
    maps_at_exit: bool = False  # maps behind blocks (`load_teacher(outputs=...)`) are read behind the stream's exit


def absent(model: nn.Module) -> Sequence[Any]:
    """Return no sites: the family has nothing of the kind."""
    return ()


@dataclass(frozen=True)
class Family:
    """A group of timm architectures that share their kind of attention and their order of units."""

    name: str
    examples: str  # listed when a model is refused
    matches: Callable[[Any], bool]
    open: Callable[[Any], None]  # swaps attention modules in place, keeps weights
    attentions: tuple[type[nn.Module], ...]  # timm's kinds that `open` swaps: a model with another kind is of another family
    units: Callable[[Any], list[Unit]]
    attention_sites: Callable[[Any], list[AttentionSite]]
    projections: Callable[[Any], list[Projections]]  # in the order of `attention_sites`
    image_size: Callable[[Any], tuple[int, int]]  # (height, width) that the model was built for
    final_norm: str | None  # between the last block and `forward_head`: "norm"; None where there is none
    token_source: str | None = None  # whose output (B, prefix + patches, D) may lose patches: what follows takes any number
    norm_readers: Callable[[Any], Sequence[NormReaders]] = absent  # in order of execution
    mlp_sites: Callable[[Any], Sequence[MlpSite]] = absent
    layer_scales: Callable[[Any], Sequence[LayerScaleSite]] = absent  # those that are not folded yet
    batch_norms: Callable[[Any], Sequence[BatchNormSite]] = absent  # those that are not folded yet
    token_biases: Callable[[Any], Sequence[TokenBias]] = absent
    side_biases: Callable[[Any], Sequence[Rows]] = absent  # all rows with a `Rows.bias`
    rotation: Rotation | None = None
    ends: Callable[[Any], EndSites] | None = None  # None: the layers of the first and of the last unit
    outputs: Callable[[Any, Tensor], tuple[Tensor, Tensor, Tensor]] | None = None
    """What the last block wrote -> tokens, pooled features, logits; None: `final_norm` and `forward_head` tell."""
