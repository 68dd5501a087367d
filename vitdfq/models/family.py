"""What the engines need to know of an architecture: its units, its attention sites, who reads its norms, how to open it."""

from collections.abc import Callable
from dataclasses import dataclass

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
    """One opened attention and the shape of its maps: `(B * num_windows, num_heads, N, N)`.

    `N = num_prefix_tokens + grid[0] * grid[1]`; the windows of one image follow each other (batch-major).
    """

    name: str  # "blocks.3.attn"; its submodules are "blocks.3.attn.qk", ".softmax", ".av"
    depth: int  # 0-based index of the block
    num_heads: int
    grid: tuple[int, int]  # patch tokens of one map: (14, 14) for ViT-B/16, (7, 7) for one Swin window
    num_prefix_tokens: int  # class, distillation and register tokens in front (0 for Swin)
    num_windows: int  # attention maps per image (1 for ViT)
    class_row: bool  # True: saliency is row 0 (the class token's); False: the mean over all query rows


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
    norm_readers: Callable[[nn.Module], list[NormReaders]]
    token_source: str | None = None  # whose output (B, prefix + patches, D) may lose patches: what follows takes any number
