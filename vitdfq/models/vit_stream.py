"""The residual stream of a ViT: what writes it, what reads it, and what stands at its end."""

from collections.abc import Callable, Sequence
from typing import Any

from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, ParallelThingsBlock, ResPostBlock
from torch import nn

from vitdfq.models.family import NormReaders, Rotation, Stream, nothing
from vitdfq.models.vit_blocks import MLPS, Branch, branches, last_norm

TOKENS = ("pos_embed", "cls_token", "dist_token", "reg_token")
LINEAR_POOLINGS = ("token", "avg", "")  # they commute with a rotation of the channels
POST_NORM = "works on blocks whose norms stand before attention and MLP only: these write norms into the stream"


def streams(model: Any) -> list[Stream]:
    """Return the one stream: patches and tokens, what the blocks add to it, and all norms that read it.

    Behind a norm in front of the blocks (CLIP) nothing before it belongs to the stream.
    """
    return [stream_of(model, branches(model))]


def stream_of(model: Any, blocks: Sequence[Branch]) -> Stream:
    """Return the stream that these branches read and add to, of a model that embeds, pools and classifies as ViTs do."""
    if not isinstance(getattr(model, "norm_pre", nn.Identity()), nn.Identity):
        writers, tokens = ["norm_pre"], []
    else:
        writers = ["patch_embed.proj" if isinstance(model.patch_embed.norm, nn.Identity) else "patch_embed.norm"]
        tokens = [name for name in TOKENS if getattr(model, name, None) is not None]
    writers += [branch.writer for branch in blocks]
    readers = [NormReaders(branch.norm, branch.readers, shifts=True) for branch in blocks]
    last, exit, centered = _end(model)
    return Stream(model.embed_dim, tuple(writers), tuple(tokens), (*readers, *last), exit, centered)


def _end(model: Any) -> tuple[list[NormReaders], str | None, bool]:
    """Return what reads the stream behind the blocks, its exit, and whether it is centered (see `Stream`).

    Linear layers read the last norm where a linear pooling, or none, stands between: these take up the rotation. In all other
    cases the stream is turned back: behind its norm, or, where something reads it before any norm, there.
    """
    last = last_norm(model)
    is_linear = model.global_pool in LINEAR_POOLINGS
    pools_by_attention = getattr(model, "attn_pool", None) is not None
    if _is_norm(model.norm):
        last = [site for site in last if site.norm == "norm"]  # EVA may have a norm behind the pooling too
        return (last, None, True) if last and (is_linear or pools_by_attention) else ([], "norm", True)
    if is_linear and _is_norm(model.fc_norm) and type(model) is not VisionTransformerDistilled:
        return (last, None, True) if last else ([], "fc_norm", True)
    return [], "norm", False


def _is_norm(part: nn.Module) -> bool:
    """Whether timm has a norm there: rotated, it is the first of a pair."""
    return not isinstance(part[0] if isinstance(part, nn.Sequential) else part, nn.Identity)


def why_not(model: Any) -> str | None:
    """Return what prevents every rotation."""
    known = (Block, ParallelThingsBlock, ResPostBlock)
    if other := {type(block).__name__ for block in model.blocks if type(block) not in known}:
        return f"works on the blocks of ViT, DeiT, DINOv2 and CLIP only, not on {' and '.join(sorted(other))}"
    return None


def why_not_streams(model: Any) -> str | None:
    """Return what prevents a rotation of the stream, though heads and MLPs may be rotated."""
    if any(type(block) is ResPostBlock for block in model.blocks):
        return POST_NORM
    parts = sum(len([*block.attns, *block.ffns]) if type(block) is ParallelThingsBlock else 2 for block in model.blocks)
    return why_not_branches(branches(model), parts)


def why_not_branches(blocks: Sequence[Branch], parts: int) -> str | None:
    """Return what prevents a rotation where not all of this number of attentions and MLPs are known branches."""
    if len(blocks) != parts:
        return f"works on timm's Attention and {', '.join(kind.__name__ for kind in MLPS)} only: a block has another branch"
    return None


def rotation_of(branches_of: Callable[[Any], Sequence[Branch]], kind: type[nn.Module] | None = None) -> Rotation:
    """Return the rotation of a family of one stream, whose blocks each have an attention and an MLP.

    Args:
        branches_of: returns the branches of a model's blocks.
        kind: the blocks whose norms stand before attention and MLP, where the family has others too.
    """

    def streams_of(model: Any) -> list[Stream]:
        return [stream_of(model, branches_of(model))]

    def why_not_streams_of(model: Any) -> str | None:
        if kind is not None and any(type(block) is not kind for block in model.blocks):
            return POST_NORM
        return why_not_branches(branches_of(model), 2 * len(model.blocks))

    return Rotation(streams_of, why_not=nothing, why_not_streams=why_not_streams_of, maps_at_exit=True)


ROTATION = Rotation(streams=streams, why_not=why_not, why_not_streams=why_not_streams, maps_at_exit=True)
