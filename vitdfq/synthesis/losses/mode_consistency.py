"""The teacher attends to the same patches in training mode as in evaluation mode (ACQ-style)."""

from contextlib import nullcontext

import torch
from torch import Tensor

from vitdfq.synthesis.objective.context import BATCH_NORMS, Pass, SynthContext, TeacherFacts
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.synthesis.objective.saliency import last_of_stages, saliency, saliency_name
from vitdfq.synthesis.objective.stochastic_depth import batch_statistics, drop_rates, dropped_paths


def consistent_blocks(facts: TeacherFacts) -> list[str]:
    """`Loss.listens`: the saliency of the last block of each stage."""
    return [saliency_name(site) for site in last_of_stages(facts.sites)]


def has_batch_norms(facts: TeacherFacts) -> bool:
    """`Loss.compares`: with BatchNorms, passes in training mode use statistics of the batch."""
    return any(isinstance(norm, BATCH_NORMS) for norm in facts.norms.values())


def stochastic_passes(ctx: SynthContext, networks: Networks, *, draws: int = 2, rate: float | None = None) -> list[Pass]:
    """`Loss.passes`: run the teacher `draws` times with stochastic depth and with the batch's statistics in BatchNorms.

    A single view is no batch: its BatchNorms use their running statistics.

    Args:
        ctx: the teacher's plain pass.
        networks: runs the teacher.
        draws: number of passes; each view drops paths by its own random stream.
        rate: drop rate of the last block; None: see `drop_rates`.

    Raises:
        ValueError: `draws` or `rate` is out of range.
    """
    if draws < 1 or not 0 <= (rate or 0) < 1:
        raise ValueError(f"mode_consistency takes draws >= 1 and a rate from 0 to below 1, got draws={draws} and rate={rate}")
    model, rates = networks.teacher, drop_rates(networks.teacher, rate)
    rngs = ctx.generators("mode_consistency")
    passes: list[Pass] = []
    for _ in range(draws):
        uniform = torch.stack([torch.rand(len(rates), generator=rng) for rng in rngs]).to(ctx.images.device)
        statistics = batch_statistics(model) if len(ctx.images) > 1 else nullcontext({})
        with dropped_paths(model, rates, uniform), statistics as buffers:
            passes.append(networks.run(ctx.images, parameters=buffers))
    return passes


def mode_consistency(ctx: SynthContext) -> Tensor:
    """Return |s - s'|², the squared distance of saliency maps in evaluation and training mode, mean over passes and blocks. (B,)

    ACQ-style (arXiv 2301.07266): the paper's equations were not available to us; this is our reading of the abstract's
    between-mode consistency. The paper is about BatchNorm. In models with LayerNorm only, the modes differ by dropped paths or
    not at all; there the loss is an analogue, stability under stochastic depth. The blocks are the last of each stage, or the
    last three. With BatchNorms an image depends on its batch.
    """
    distances = [
        (saliency(ctx, site, ctx.kept_tokens) - saliency(other, site, ctx.kept_tokens)).square().sum((1, 2))
        for site in last_of_stages(ctx.sites)
        for other in ctx.passes["mode_consistency"]
    ]
    return torch.stack(distances).mean(0)
