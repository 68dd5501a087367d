"""Sparse inversion: patches the class token hardly looks at leave the forward pass (SMI, ICML 2024)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.models import family_of
from vitdfq.models.family import AttentionSite
from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.objective.jitter import Jitter


@dataclass(frozen=True)
class Pruning:
    """When patches leave, and how many of those that are left."""

    at: tuple[float, ...]  # shares of the run, ascending
    share: float = 0.3  # of the remaining patches, each time

    def is_active(self, step: int, steps: int) -> bool:
        return step in {round(share * steps) for share in self.at}

    def left(self, count: int) -> int:
        """How many of `count` patches stay."""
        return max(1, count - int(self.share * count))


def prunable(teacher: nn.Module, facts: TeacherFacts) -> bool:
    """Whether the teacher takes any number of patches and has a class token that chooses them."""
    return family_of(teacher).token_source is not None and facts.sites[-1].class_row


def check_prunable(teacher: nn.Module, facts: TeacherFacts) -> None:
    """Raise ValueError unless patches of the teacher can leave."""
    if not prunable(teacher, facts):
        raise ValueError("prune_at needs a teacher with a class token that takes any number of patches, such as ViT or DeiT")


def patch_size(facts: TeacherFacts) -> tuple[int, int]:
    grid = facts.sites[-1].grid
    return facts.image_size[0] // grid[0], facts.image_size[1] // grid[1]


def choose(rows: Tensor, site: AttentionSite, kept: Tensor | None, left: int) -> Tensor:
    """Return the `left` patches with the most attention: (B, left), ascending numbers on the grid of the image as fed.

    Args:
        rows: (B, 1, H, N) attention of the class token to the tokens that were shown.
        kept: (B, k) the patches among them, None for all.
    """
    attention = rows.mean((1, 2))[:, site.num_prefix_tokens :]  # (B, k)
    best = attention.topk(left, dim=1).indices
    return (best if kept is None else kept.gather(1, best)).sort(dim=1).values


def moved(kept: Tensor, jitter: Jitter, facts: TeacherFacts) -> Tensor:
    """Where patches (B, k) of the image lie after a jitter by whole patches; ascending."""
    rows, columns = facts.sites[-1].grid
    height, width = patch_size(facts)
    down, right = jitter.offset // height, jitter.offset // width
    row, column = (kept // columns + down) % rows, (kept % columns + right) % columns
    column = columns - 1 - column if jitter.flip else column
    return (row * columns + column).sort(dim=1).values


def whole_patches(jitter: Jitter, facts: TeacherFacts) -> Jitter:
    """The jitter with its shift rounded to whole patches, so that a patch stays a patch."""
    side = max(patch_size(facts))
    return Jitter(round(jitter.offset / side) * side, jitter.flip)


@contextmanager
def only_patches(model: Any, kept: Tensor | None) -> Iterator[None]:
    """Show the model's blocks its prefix tokens and the patches `kept` (B, k) alone; None shows all."""
    if kept is None:
        yield
        return

    def drop(module: nn.Module, args: Any, tokens: Tensor) -> Tensor:
        prefix = tokens[:, : model.num_prefix_tokens]
        patches = tokens[:, model.num_prefix_tokens :]
        shown = patches.gather(1, kept[:, :, None].expand(-1, -1, patches.shape[2]))
        return torch.cat([prefix, shown], dim=1)

    source = family_of(model).token_source
    handle = model.get_submodule(source).register_forward_hook(drop)
    try:
        yield
    finally:
        handle.remove()
