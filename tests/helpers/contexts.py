"""Contexts of losses, as the synthesis engines build them."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitdfq.synthesis import SynthContext, TeacherFacts
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.synthesis.objective.weighted_losses import WeightedLoss, listened_names, resolve_losses
from vitdfq.synthesis.presets import Method
from vitdfq.synthesis.targets.views import Views, draw_views


def make_context(teacher: torch.nn.Module, images: Tensor, losses: dict[str, Any], first: int = 0, **fields: Any):
    """Run the teacher on images (B, 3, H, W): the context and the weighted losses.

    The images have the indices `first`, `first` + 1, ... of a method with these `fields`.
    """
    facts, terms = TeacherFacts.of(teacher), resolve_losses(losses)
    method = Method("test", losses, **fields)
    views = [draw_views(first + index, 0, method, terms, facts) for index in range(len(images))]
    stacked = Views.stack([image_views[:1] for image_views in views], torch.device("cpu"))
    with Networks(teacher, listened_names(terms, facts)) as networks:
        ctx = SynthContext(
            **vars(networks.run(images)),
            targets=stacked.targets,
            facts=facts,
            drawn=stacked.drawn,
            indices=list(range(first, first + len(images))),
            places=stacked.places,
            step=0,
            steps=1,
        )
        return replace(ctx, passes={term.name: term.passes(ctx, networks) for term in terms}), terms


def weighted_total(ctx: SynthContext, terms: list[WeightedLoss]) -> Tensor:
    return torch.stack([term.weight * term.value(ctx) for term in terms]).sum(0)
