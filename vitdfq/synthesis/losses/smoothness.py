"""Neighboring pixels are alike: total variation without a target."""

import math

import torch
from torch import Tensor

from vitdfq.synthesis.losses.total_variation import differences
from vitdfq.synthesis.objective.context import SynthContext


def smoothness(ctx: SynthContext) -> Tensor:
    """Return |Δ_row| + |Δ_column| + (|Δ_diagonal| + |Δ_antidiagonal|) / √2. (B,)

    Each |Δ| is the L2 norm of the differences of an image's neighboring pixels in one direction. MimiQ's form
    (arXiv 2407.20021). There the norms are over the batch and before the jitter; here they are those of each image, after the
    jitter.
    """
    across, down, *diagonals = (torch.linalg.vector_norm(part.flatten(1), dim=1) for part in differences(ctx.images))
    return across + down + torch.stack(diagonals).sum(0) / math.sqrt(2)
