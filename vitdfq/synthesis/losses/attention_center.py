"""Each image shall draw attention to a place of its own (ACQ-style)."""

import torch
from torch import Tensor

from vitdfq.synthesis.objective.context import Draws, SynthContext, TeacherFacts
from vitdfq.synthesis.objective.saliency import center, saliency, saliency_name

REACH = 0.4  # the centers of natural images deviate by about .16 and .29; the edge, 1, cannot be reached


def last_block(facts: TeacherFacts) -> list[str]:
    return [saliency_name(facts.sites[-1])]


def draw_center(rng: torch.Generator, facts: TeacherFacts) -> Draws:
    """Draw the center of attention (y, x) of one view."""
    return {"center": (2 * torch.rand(2, generator=rng) - 1) * REACH}


def attention_center(ctx: SynthContext) -> Tensor:
    """Squared distance of the center of the last block's saliency to the place drawn for the image; 0 for crops.

    ACQ-style (arXiv 2301.07266): the paper's equations were not available to us; this is our reading of the abstract's
    "attention center". The place is one of the image: where jitter has moved the image, the center is measured as if it had not,
    so that what a shift wraps around the edge does not pull it to the other side. Returns (B,).
    """
    maps = saliency(ctx, ctx.sites[-1], ctx.kept)
    centers = center(maps, ctx.jitter.offset, ctx.jitter.flip, ctx.facts.image_size)
    distance = (centers - ctx.drawn["attention_center"]["center"]).square().sum(1)
    whole = torch.tensor([place == 0 for place in ctx.places], device=distance.device)
    return distance * whole
