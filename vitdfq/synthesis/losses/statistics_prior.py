"""The statistics of BatchNorms or LayerNorms, whichever the model has."""

from torch import Tensor

from vitdfq.synthesis.losses.batch_norm_statistics import batch_norm_inputs, batch_norm_statistics, stored_statistics
from vitdfq.synthesis.losses.norm_statistics import norm_statistics, token_norms
from vitdfq.synthesis.objective.context import SynthContext, TeacherFacts


def norm_inputs(facts: TeacherFacts) -> list[str]:
    """`Loss.listens`: the inputs of the norms that are compared."""
    return batch_norm_inputs(facts) if stored_statistics(facts) else token_norms(facts)


def statistics_prior(ctx: SynthContext, *, form: str = "kl", first_weight: float = 1.0, hinge: float = 0.25) -> Tensor:
    """Return `batch_norm_statistics` for a model with BatchNorms, else `norm_statistics`. (B,)

    GZNQ-style (arXiv 2101.08430): the paper's equations were not available to us; this is our reading of the abstract.

    Args:
        ctx: recorded inputs of `norm_inputs`.
        form: distance of moments, see `channel_moments.FORMS`.
        first_weight: of `batch_norm_statistics`.
        hinge: of `norm_statistics`.
    """
    if stored_statistics(ctx.facts):
        return batch_norm_statistics(ctx, form=form, first_weight=first_weight)
    return norm_statistics(ctx, form=form, hinge=hinge)
