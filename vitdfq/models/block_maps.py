"""Outputs for dense tasks: the maps of tokens behind chosen blocks or stages, in place of one pooled feature or of logits.

timm's own `forward_intermediates` gives them, behind the final norm where the model has one for all blocks (as DINOv2's
`get_intermediate_layers` does). Blocks behind the last one that is asked for are removed, and so is the head.
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.models.any_timm import is_watched
from vitdfq.models.untrusted import short


def give_block_maps(teacher: Any, outputs: Sequence[int]) -> Any:
    """Let an opened teacher give (B, C, H, W) behind each of these blocks, a tuple, in place; return it.

    Args:
        teacher: as `finish` returned it.
        outputs: indexes of blocks from 0, or of stages where a model has them, ascending.

    Raises:
        ValueError: indexes that the model does not have, or a model that gives no maps.
    """
    kind = type(teacher).__name__
    if is_watched(teacher):
        raise ValueError(f"outputs works on families that know their blocks only, not on this {kind}, opened by watching")
    if not hasattr(teacher, "forward_intermediates") or not hasattr(teacher, "prune_intermediate_layers"):
        raise ValueError(f"outputs: timm's {kind} gives no maps behind its blocks")
    count = len(teacher.feature_info)
    fits = isinstance(outputs, list | tuple) and all(type(index) is int and 0 <= index < count for index in outputs)
    if not fits or not outputs or list(outputs) != sorted(set(outputs)):
        given = short(outputs)
        raise ValueError(f"outputs is {given}; expected indexes of blocks or stages of this {kind}, 0 to {count - 1}, ascending")
    teacher.prune_intermediate_layers(list(outputs), prune_norm=False, prune_head=True)
    teacher.block_maps = tuple(outputs)
    teacher.forward = MethodType(_forward, teacher)
    record = teacher.vitdfq["model"]
    arguments = {key: value for key, value in record["model_args"].items() if key != "num_classes"}
    record |= {"model_args": arguments, "num_classes": 0, "outputs": list(outputs)}
    return teacher


def map_names(model: Any) -> list[str]:
    """Return the names of the maps that a teacher or a student gives, "block_2" or "stage_1"; none where it gives one output."""
    return [f"{'block' if _is_block(model, index) else 'stage'}_{index}" for index in getattr(model, "block_maps", ())]


def gives_block_maps(model: nn.Module) -> bool:
    """Return whether a forward of this module was replaced here, and not by somebody else."""
    return getattr(vars(model).get("forward"), "__func__", None) is _forward


def in_one(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return what a model gives as one tensor: maps (B, C, H, W) side by side as (B, all their numbers), others as they are."""
    return outputs if isinstance(outputs, Tensor) else torch.cat([part.flatten(1) for part in outputs], dim=1)


def joined(parts: Sequence[Any]) -> Any:
    """Return the outputs for a batch that was run in parts."""
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    return tuple(torch.cat(maps) for maps in zip(*parts, strict=True))


def _forward(model: Any, x: Tensor) -> tuple[Tensor, ...]:
    """(B, 3, H, W) -> a map (B, C, h, w) behind each of the blocks."""
    return tuple(model.forward_intermediates(x, indices=list(model.block_maps), norm=True, intermediates_only=True))


def _is_block(model: Any, index: int) -> bool:
    return model.feature_info[index]["module"].startswith("block")
