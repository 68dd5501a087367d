"""Neighbouring pixels shall be alike: total variation without a target."""

import math

import torch
from torch import Tensor

from vitdfq.synthesis.losses.total_variation import differences
from vitdfq.synthesis.objective.context import SynthContext


def smoothness(ctx: SynthContext) -> Tensor:
    """Sum of the L2 norms of an image's differences along rows, columns and, divided by √2, both diagonals.

    MimiQ's form (arXiv 2407.20021), which takes the norms over the batch and before the jitter; here each image has its own,
    as it was fed. Returns (B,).
    """
    across, down, *diagonals = (torch.linalg.vector_norm(part.flatten(1), dim=1) for part in differences(ctx.images))
    return across + down + torch.stack(diagonals).sum(0) / math.sqrt(2)
