"""Neighbouring pixels shall differ as much as in a natural image."""

import math

import torch
from torch import Tensor

from vitdfq.synthesis.objective.context import Draws, SynthContext, TeacherFacts
from vitdfq.synthesis.schedule import REFERENCE_SIDE

# PSAQ-ViT (arXiv 2203.02250) takes norms over the whole batch and draws one target from U(2500, 3000) for 32 images.
# Norms grow with the square root of the number of images, so this is the same target for one: U(2500, 3000) / √32.
TARGET_RANGE = (442.0, 530.0)


def draw_target(rng: torch.Generator, facts: TeacherFacts) -> Draws:
    """Draw one view's target: U(442, 530) at 224 pixels; norms grow with the side, and so does the target."""
    scale = math.sqrt(facts.image_size[0] * facts.image_size[1]) / REFERENCE_SIDE
    lower, upper = TARGET_RANGE
    return {"target": (torch.rand((), generator=rng) * (upper - lower) + lower) * scale}


def total_variation(ctx: SynthContext) -> Tensor:
    """Distance of the total variation to its target, per image.

    Total variation is the sum of the L2 norms of an image's differences along rows, columns and both diagonals.
    PSAQ-ViT takes them over the batch; here each image has its own norms and its own target, so that it does not depend
    on its batch. The slope of a norm over 32 images is √32 times less steep in each of them than that of its own norm, but there
    it stands beside means over the batch: the published weight .05 counts √32 times less here, beside the other losses. Returns
    (B,).
    """
    variation = sum(torch.linalg.vector_norm(part.flatten(1), dim=1) for part in differences(ctx.images))
    return (variation - ctx.drawn["total_variation"]["target"]).abs()


def differences(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Differences of neighbouring pixels of (B, 3, H, W): along rows, columns and both diagonals."""
    return (
        x[:, :, :, 1:] - x[:, :, :, :-1],
        x[:, :, 1:, :] - x[:, :, :-1, :],
        x[:, :, 1:, 1:] - x[:, :, :-1, :-1],
        x[:, :, 1:, :-1] - x[:, :, :-1, 1:],
    )
