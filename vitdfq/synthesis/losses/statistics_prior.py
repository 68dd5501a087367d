"""The statistics of a model's norms, whichever it has."""

from torch import Tensor

from vitdfq.synthesis.losses.batch_norm_statistics import batch_norm_inputs, batch_norm_statistics, kept_statistics
from vitdfq.synthesis.losses.norm_statistics import norm_statistics, token_norms
from vitdfq.synthesis.objective.context import SynthContext, TeacherFacts


def norm_inputs(facts: TeacherFacts) -> list[str]:
    return batch_norm_inputs(facts) if kept_statistics(facts) else token_norms(facts)


def statistics_prior(ctx: SynthContext, *, form: str = "kl", first_weight: float = 1.0, hinge: float = 0.25) -> Tensor:
    """`batch_norm_statistics` where the model has BatchNorm (`first_weight` is its), else `norm_statistics` (`hinge` is its).

    GZNQ-style (arXiv 2101.08430): the paper's equations were not available to us; this is our reading of the abstract.
    Returns (B,).
    """
    if kept_statistics(ctx.facts):
        return batch_norm_statistics(ctx, form=form, first_weight=first_weight)
    return norm_statistics(ctx, form=form, hinge=hinge)
