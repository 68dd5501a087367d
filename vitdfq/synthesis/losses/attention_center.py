"""Attention is drawn to a random position in each image (ACQ-style)."""

import torch
from torch import Tensor

from vitdfq.synthesis.objective.context import Draws, SynthContext, TeacherFacts
from vitdfq.synthesis.objective.saliency import center, saliency, saliency_name

REACH = 0.4  # largest coordinate; centers of natural images have standard deviations of about .16 and .29, the edge is at 1


def last_block(facts: TeacherFacts) -> list[str]:
    """`Loss.listens`: the saliency of the last block."""
    return [saliency_name(facts.sites[-1])]


def draw_center(rng: torch.Generator, facts: TeacherFacts) -> Draws:
    """`Loss.draw`: the target center (y, x) of one view, each coordinate ~ U(-0.4, 0.4); the image spans -1 to 1."""
    return {"center": (2 * torch.rand(2, generator=rng) - 1) * REACH}


def attention_center(ctx: SynthContext) -> Tensor:
    """Return |c - t|², the squared distance of the saliency's center c in the last block to the target t; 0 for crops. (B,)

    ACQ-style (arXiv 2301.07266): the paper's equations were not available to us; this is our reading of the abstract's
    "attention center". The target is a position in the unjittered image, and so is the center: a shift wraps saliency around
    the edge, which would otherwise pull the center to the other side.
    """
    maps = saliency(ctx, ctx.sites[-1], ctx.kept_tokens)
    centers = center(maps, ctx.jitter.offset, ctx.jitter.flip, ctx.facts.image_size)
    distance = (centers - ctx.drawn["attention_center"]["center"]).square().sum(1)
    whole = torch.tensor([place == 0 for place in ctx.places], device=distance.device)
    return distance * whole
