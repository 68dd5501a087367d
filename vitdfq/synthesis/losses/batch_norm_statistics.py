"""The inputs of BatchNorms have the statistics of the training images, which BatchNorms store."""

import torch
from torch import Tensor

from vitdfq.common.lookup import lookup
from vitdfq.synthesis.objective.channel_moments import FORMS, Moments, moments
from vitdfq.synthesis.objective.context import BATCH_NORMS, SynthContext, TeacherFacts


def stored_statistics(facts: TeacherFacts) -> dict[str, Moments]:
    """Return the running moments of every BatchNorm that stores them, by name; {} without any."""
    stored: dict[str, Moments] = {}
    for name, norm in facts.norms.items():
        if isinstance(norm, BATCH_NORMS) and norm.running_mean is not None and norm.running_var is not None:
            stored[name] = Moments(norm.running_mean, norm.running_var)
    return stored


def batch_norm_inputs(facts: TeacherFacts) -> list[str]:
    """`Loss.listens`: the inputs of BatchNorms.

    Raises:
        ValueError: the model has no BatchNorm with running statistics.
    """
    names = [f"{name}:input" for name in stored_statistics(facts)]
    if not names:
        raise ValueError("batch_norm_statistics needs a model with BatchNorm; norm_statistics is for models with LayerNorm")
    return names


def batch_norm_statistics(ctx: SynthContext, *, form: str = "kl", first_weight: float = 1.0) -> Tensor:
    """Return the distance D(batch moments, running moments) of every BatchNorm's input, mean over layers.

    GZNQ-style (arXiv 2101.08430): the paper's equations were not available to us; "kl" is our reading of the abstract. Every
    image gets the value of the whole batch, so that a weight has the same scale as for other losses.

    Args:
        ctx: recorded inputs of all BatchNorms.
        form: D, "kl", "mse" (GDFQ, arXiv 2003.03603) or "l2" (DeepInversion, arXiv 1912.08795), see `channel_moments.FORMS`.
        first_weight: weight of the first BatchNorm, the nearest to the pixels; DeepInversion's is 10.

    Returns:
        (B,)
    """
    distance = lookup(form, FORMS, "form")
    stored = stored_statistics(ctx.facts)
    values = [distance(moments(ctx.recorded[f"{name}:input"], channel=1), target) for name, target in stored.items()]
    return torch.stack([first_weight * values[0], *values[1:]]).mean().expand(len(ctx.images))
