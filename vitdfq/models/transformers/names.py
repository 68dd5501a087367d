"""Names of tensors: rules that rename, queries, keys and values that become one layer, positions of another image size."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.models.transformers.config import sides

Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
Tensors = dict[str, Tensor]
QKV = re.compile(r"(.*)\.(query|key|value)\.(weight|bias)")


@dataclass(frozen=True)
class Structure:
    """What timm builds for a config.json, and how the tensors beside it are called there."""

    architecture: str  # of timm; `model_args` say all of it, the name only chooses the class
    model_args: dict[str, Any]
    tensors: Callable[[Tensors], Tensors]  # transformers' names -> timm's; what is not part of the model is left out


def renamed(tensors: Tensors, rules: Rules, dropped: str) -> Tensors:
    """Return the tensors by the names that the rules give, applied in order, without those whose new name is `dropped`."""
    result = {}
    for name, value in tensors.items():
        for old, new in rules:
            name = re.sub(old, new, name)
        if not re.search(dropped, name):
            result[name] = value
    return result


def with_qkv(tensors: Tensors) -> Tensors:
    """Return the tensors with "X.query", "X.key" and "X.value" as one "X.qkv", whose rows they are; where one lacks, none is."""
    result, parts = dict(tensors), {}
    for name in tensors:
        if match := QKV.fullmatch(name):
            parts.setdefault((match[1], match[3]), set()).add(match[2])
    for (owner, kind), found in parts.items():
        if len(found) == 3:
            three = [result.pop(f"{owner}.{part}.{kind}") for part in ("query", "key", "value")]
            result[f"{owner}.qkv.{kind}"] = torch.cat(three)
    return result


def resampled(positions: Tensor, prefix: int, grid: tuple[int, int], wanted: tuple[int, int], antialias: bool) -> Tensor:
    """Return position embeddings (1, prefix + H * W, D) for another grid of patches, as transformers interpolates them."""
    if grid == wanted or 0 in wanted or positions.ndim != 3 or positions.shape[1] != prefix + grid[0] * grid[1]:
        return positions  # of a wrong shape: named where the tensors are compared with the model
    patches = positions[:, prefix:].float().unflatten(1, grid).permute(0, 3, 1, 2)
    patches = nn.functional.interpolate(patches, size=wanted, mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([positions[:, :prefix].float(), patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def grid_of(image_size: int | list[int], patch_size: int | list[int]) -> tuple[int, int]:
    """Return the rows and columns of patches."""
    (height, width), (patch_height, patch_width) = sides(image_size), sides(patch_size)
    return height // patch_height, width // patch_width
