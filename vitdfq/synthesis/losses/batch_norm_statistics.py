"""What BatchNorms read shall have the statistics that they kept of the training images."""

import torch
from torch import Tensor

from vitdfq.common.lookup import lookup
from vitdfq.synthesis.objective.channel_moments import FORMS, Moments, moments
from vitdfq.synthesis.objective.context import SynthContext, TeacherFacts


def kept_statistics(facts: TeacherFacts) -> dict[str, Moments]:
    """The running moments of every BatchNorm that keeps them, one- or two-dimensional, by name; {} without any."""
    means = {name: getattr(norm, "running_mean", None) for name, norm in facts.norms.items()}  # LayerNorm has none
    return {name: Moments(mean, facts.norms[name].running_var) for name, mean in means.items() if mean is not None}


def batch_norm_inputs(facts: TeacherFacts) -> list[str]:
    """Inputs of BatchNorms.

    Raises:
        ValueError: the model has no BatchNorm with running statistics.
    """
    names = [f"{name}:input" for name in kept_statistics(facts)]
    if not names:
        raise ValueError("batch_norm_statistics needs a model with BatchNorm; norm_statistics is for models with LayerNorm")
    return names


def batch_norm_statistics(ctx: SynthContext, *, form: str = "kl", first_weight: float = 1.0) -> Tensor:
    """Distance of the moments of every BatchNorm's input over the batch to its running mean and variance; mean over layers.

    GZNQ-style (arXiv 2101.08430): the paper's equations were not available to us; "kl" is our reading of the abstract. Every
    image of the batch carries the value of the whole, so that a weight means what it does for other losses.

    Args:
        form: "kl", "mse" (GDFQ) or "l2" (DeepInversion), see `synthesis/moments.py`.
        first_weight: of the first BatchNorm, the nearest to the pixels; DeepInversion's is 10.

    Returns:
        (B,)
    """
    distance = lookup(form, FORMS, "form")
    kept = kept_statistics(ctx.facts)
    values = [distance(moments(ctx.recorded[f"{name}:input"], channel=1), wanted) for name, wanted in kept.items()]
    return torch.stack([first_weight * values[0], *values[1:]]).mean().expand(len(ctx.images))
