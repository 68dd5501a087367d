"""Token pruning: the patches least attended by the class token leave the forward pass (SMI, arXiv 2510.27186, ICML 2024)."""

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
    """The pruning schedule: when patches are pruned, and how many."""

    at: tuple[float, ...]  # shares of the run at which patches are pruned, ascending
    share: float = 0.3  # of the remaining patches that is pruned each time

    def is_active(self, step: int, steps: int) -> bool:
        """Whether patches are pruned before this step."""
        return step in {round(share * steps) for share in self.at}

    def remaining(self, count: int) -> int:
        """Return how many of `count` patches stay, at least 1."""
        return max(1, count - int(self.share * count))


def prunable(teacher: nn.Module, facts: TeacherFacts) -> bool:
    """Whether the teacher accepts any number of patches and has a class token, whose attention selects them."""
    return family_of(teacher).token_source is not None and facts.sites[-1].class_row


def check_prunable(teacher: nn.Module, facts: TeacherFacts) -> None:
    """Raise ValueError unless patches of the teacher can be pruned."""
    if not prunable(teacher, facts):
        raise ValueError("prune_at needs a teacher with a class token that takes any number of patches, such as ViT or DeiT")


def patch_size(facts: TeacherFacts) -> tuple[int, int]:
    """Return (height, width) of a patch in pixels."""
    grid = facts.sites[-1].grid
    return facts.image_size[0] // grid[0], facts.image_size[1] // grid[1]


def most_attended(rows: Tensor, site: AttentionSite, kept_tokens: Tensor | None, count: int) -> Tensor:
    """Return the `count` patches with the most attention, (B, count), ascending indices on the grid of the pass.

    Args:
        rows: (B, 1, H, N), the class token's attention to the tokens of the pass.
        site: the attention site of `rows`.
        kept_tokens: (B, k) indices of the patches in the pass; None: all.
        count: at most k.
    """
    attention = rows.mean((1, 2))[:, site.num_prefix_tokens :]  # (B, k)
    best = attention.topk(count, dim=1).indices
    return (best if kept_tokens is None else kept_tokens.gather(1, best)).sort(dim=1).values


def after_jitter(kept_tokens: Tensor, jitter: Jitter, facts: TeacherFacts) -> Tensor:
    """Return the indices (B, k), ascending, of patches (B, k) of an image after a jitter by whole patches."""
    rows, columns = facts.sites[-1].grid
    height, width = patch_size(facts)
    down, right = jitter.offset // height, jitter.offset // width
    row, column = (kept_tokens // columns + down) % rows, (kept_tokens % columns + right) % columns
    column = columns - 1 - column if jitter.flip else column
    return (row * columns + column).sort(dim=1).values


def whole_patches(jitter: Jitter, facts: TeacherFacts) -> Jitter:
    """Return the jitter with its shift rounded to whole patches, so that a patch stays a patch."""
    side = max(patch_size(facts))
    return Jitter(round(jitter.offset / side) * side, jitter.flip)


@contextmanager
def only_kept_tokens(model: Any, kept_tokens: Tensor | None) -> Iterator[None]:
    """Within the block, the model's blocks get its prefix tokens and the patches `kept_tokens` (B, k) only; None: all."""
    if kept_tokens is None:
        yield
        return

    def drop(module: nn.Module, args: Any, tokens: Tensor) -> Tensor:
        prefix = tokens[:, : model.num_prefix_tokens]
        patches = tokens[:, model.num_prefix_tokens :]
        kept = patches.gather(1, kept_tokens[:, :, None].expand(-1, -1, patches.shape[2]))
        return torch.cat([prefix, kept], dim=1)

    source = family_of(model).token_source
    handle = model.get_submodule(source).register_forward_hook(drop)
    try:
        yield
    finally:
        handle.remove()
