"""What the engines need to know of an architecture: its units, its attention, who reads its norms, how to open it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Unit:
    """One link of the chain: `model(x) == units[-1].forward(... units[0].forward(x))`.

    `forward` reads the model's submodules at every call, so it sees a module swapped in later. `modules` is what was
    there when the units were listed; parameters of the model itself (position embedding, class token) are in no unit.
    """

    name: str  # "embed", "blocks.3", "layers.1.downsample", "head"
    forward: Callable[[Tensor], Tensor]
    modules: tuple[nn.Module, ...]  # whose parameters and quantizers belong to this unit


@dataclass(frozen=True)
class AttentionSite:
    """One opened attention and the shape of its maps: `(B * num_windows, num_heads, N, N)`, queries before keys.

    `N = num_prefix_tokens + grid[0] * grid[1]`; the windows of one image follow each other (batch-major). Where fewer queries
    than keys are asked, their number is that of `query_grid`, and `.av` has so many tokens.
    """

    name: str  # "blocks.3.attn"; its submodules are "blocks.3.attn.qk", ".softmax", ".av"
    depth: int  # 0-based index of the block
    num_heads: int
    grid: tuple[int, int]  # patch tokens of one map: (14, 14) for ViT-B/16, (7, 7) for one Swin window
    num_prefix_tokens: int  # class, distillation and register tokens in front (0 for Swin)
    num_windows: int  # attention maps per image (1 for ViT)
    class_row: bool  # True: saliency is row 0 (the class token's); False: the mean over all query rows
    query_grid: tuple[int, int] | None = None  # None: queries are the tokens that keys are, as everywhere but in LeViT


@dataclass(frozen=True)
class Rows:
    """The rows of a linear layer's weight that write the keys, or the values, of all heads."""

    linear: str  # "blocks.0.attn.qkv"
    rows: tuple[int, ...]  # heads in order


@dataclass(frozen=True)
class Projections:
    """The linear layers before and behind one attention, so that a change of keys or values can be undone."""

    keys: Rows
    values: Rows
    shifts: bool  # softmax does not see a constant added to all keys of a head; False: a norm of the keys does
    reader: str | None  # "blocks.0.attn.proj" where it reads the weighted values as they are: no norm, gate, activation


@dataclass(frozen=True)
class NormReaders:
    """A norm whose output reaches linear layers and nothing else, so that a change of its affine can be undone in them.

    Between the two stand at most a choice of tokens, or a pooling that commutes with a positive scale per channel.
    """

    norm: str  # "blocks.0.norm1"
    readers: tuple[str, ...]  # "blocks.0.attn.qkv"; all of them
    shifts: bool  # False: only a scale can be undone; zeros are padded in between, and a shift would not reach them


@dataclass(frozen=True)
class Family:
    """A group of timm architectures that share their kind of attention and their order of units."""

    name: str
    examples: str  # shown when a model is refused
    matches: Callable[[nn.Module], bool]
    open: Callable[[nn.Module], None]  # swaps attention modules in place, keeps weights
    units: Callable[[nn.Module], list[Unit]]
    attention_sites: Callable[[nn.Module], list[AttentionSite]]
    projections: Callable[[nn.Module], list[Projections]]
    norm_readers: Callable[[nn.Module], list[NormReaders]]
    image_size: Callable[[Any], tuple[int, int]]  # (height, width) that the model was built for
    final_norm: str | None  # between the last block and `forward_head`: "norm"; None where there is none
    token_source: str | None = None  # whose output (B, prefix + patches, D) may lose patches: what follows takes any number
