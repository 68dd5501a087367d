"""Painted images among learned ones: each kind shows a student what the other lacks."""

from collections.abc import Callable
from math import floor

import torch
from torch import Tensor

from vitdfq.synthesis.context import TeacherFacts
from vitdfq.synthesis.starts import dead_leaves


def among_painted(learn: Callable[[int], Tensor], num_images: int, share: float, seed: int, facts: TeacherFacts) -> Tensor:
    """Return (num_images, 3, H, W), on the CPU: a share of dead leaves, evenly spread, among what `learn(count)` returns.

    Which images are painted does not depend on `num_images`; with a share below 1 the first is not.
    """
    painted = [floor((index + 1) * share) > floor(index * share) for index in range(num_images)]
    learned = iter(learn(num_images - sum(painted)))
    return torch.stack([dead_leaves(index, seed, facts) if here else next(learned) for index, here in enumerate(painted)])
