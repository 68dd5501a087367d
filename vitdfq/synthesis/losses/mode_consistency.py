"""The teacher shall look at the same places as it did in training (ACQ-style)."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from vitdfq.synthesis.objective.context import Pass, SynthContext, TeacherFacts
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.synthesis.objective.saliency import last_of_stages, saliency, saliency_name
from vitdfq.synthesis.objective.stochastic_depth import batch_statistics, drop_rates, dropped_paths


def consistent_blocks(facts: TeacherFacts) -> list[str]:
    return [saliency_name(site) for site in last_of_stages(facts.sites)]


def by_the_batch(facts: TeacherFacts) -> bool:
    """Whether the passes as in training take statistics of the batch."""
    return any(isinstance(norm, nn.modules.batchnorm._BatchNorm) for norm in facts.norms.values())


def stochastic_passes(ctx: SynthContext, networks: Networks, *, draws: int = 2, rate: float | None = None) -> list[Pass]:
    """Run the teacher `draws` times with paths dropped for each view by its own stream, BatchNorms by the batch's statistics.

    `rate` is the drop rate of the last block, see `drop_rates` for its default. A view alone has no batch: its BatchNorms stay.
    """
    if draws < 1 or not 0 <= (rate or 0) < 1:
        raise ValueError(f"mode_consistency takes draws >= 1 and a rate from 0 to below 1, got draws={draws} and rate={rate}")
    model, rates = networks.teacher, drop_rates(networks.teacher, rate)
    rngs = ctx.generators("mode_consistency")
    passes = []
    for _ in range(draws):
        uniform = torch.stack([torch.rand(len(rates), generator=rng) for rng in rngs]).to(ctx.images.device)
        statistics = batch_statistics(model) if len(ctx.images) > 1 else nullcontext({})
        with dropped_paths(model, rates, uniform), statistics as buffers:
            passes.append(networks.run(ctx.images, parameters=buffers))
    return passes


def mode_consistency(ctx: SynthContext) -> Tensor:
    """Squared distance of the saliency maps of the plain pass and of passes as in training, mean over these and the blocks.

    ACQ-style (arXiv 2301.07266): the paper's equations were not available to us; this is our reading of the abstract's
    between-mode consistency. The paper means BatchNorm; on models with LayerNorm only, where both modes are the same or differ
    by dropped paths, this is an analogue: stability under stochastic depth. The blocks are the last of each stage, or the last
    three. Where the teacher has BatchNorms, an image depends on its batch. Returns (B,).
    """
    distances = [
        (saliency(ctx, site, ctx.kept) - saliency(other, site, ctx.kept)).square().sum((1, 2))
        for site in last_of_stages(ctx.sites)
        for other in ctx.passes["mode_consistency"]
    ]
    return torch.stack(distances).mean(0)
