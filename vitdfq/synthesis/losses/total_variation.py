"""Neighboring pixels differ as much as in a natural image."""

import math

import torch
from torch import Tensor

from vitdfq.synthesis.objective.context import Draws, SynthContext, TeacherFacts
from vitdfq.synthesis.schedule import REFERENCE_SIDE

# PSAQ-ViT (arXiv 2203.02250) has one norm over the batch and one target ~ U(2500, 3000) for 32 images. Norms grow with the
# square root of the number of images, so the equivalent target of one image is U(2500, 3000) / √32.
TARGET_RANGE = (442.0, 530.0)


def draw_target(rng: torch.Generator, facts: TeacherFacts) -> Draws:
    """`Loss.draw`: one view's target ~ U(442, 530) at 224 pixels, proportional to the side, as the norms are."""
    scale = math.sqrt(facts.image_size[0] * facts.image_size[1]) / REFERENCE_SIDE
    lower, upper = TARGET_RANGE
    return {"target": (torch.rand((), generator=rng) * (upper - lower) + lower) * scale}


def total_variation(ctx: SynthContext) -> Tensor:
    """Return |TV - target|, the distance of an image's total variation to its target. (B,)

    TV is the sum of the L2 norms of an image's differences along rows, columns and both diagonals. From PSAQ-ViT
    (arXiv 2203.02250), which has norms over the batch. Here each image has its own norms and target, so that it does not
    depend on its batch. The gradient of a norm over 32 images is √32 times smaller in each image than that of the image's own
    norm, but there it is added to means over the batch. Relative to the other losses, the published weight .05 therefore counts
    √32 times less here.
    """
    variation = sum(torch.linalg.vector_norm(part.flatten(1), dim=1) for part in differences(ctx.images))
    return (variation - ctx.drawn["total_variation"]["target"]).abs()


def differences(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the differences of neighboring pixels of (B, 3, H, W): along rows, columns and both diagonals."""
    return (
        x[:, :, :, 1:] - x[:, :, :, :-1],
        x[:, :, 1:, :] - x[:, :, :-1, :],
        x[:, :, 1:, 1:] - x[:, :, :-1, :-1],
        x[:, :, 1:, :-1] - x[:, :, :-1, 1:],
    )
