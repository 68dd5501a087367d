"""The predictions for different images are uncorrelated (RIS-style)."""

from torch import Tensor

from vitdfq.synthesis.objective.channel_moments import pearson
from vitdfq.synthesis.objective.context import SynthContext


def label_correlation(ctx: SynthContext) -> Tensor:
    """Return mean_j relu(ρ(p_i, p_j)), the Pearson correlation with the predictions of the other images of the batch. (B,)

    RIS-style (arXiv 2310.03661): the paper's equations were not available to us; this is our reading of the abstract's small
    correlation in the label space. 0 for a batch of one.
    """
    predictions = ctx.logits.softmax(1)
    correlation = pearson(predictions, predictions).relu()
    return (correlation.sum(1) - correlation.diagonal()) / max(len(correlation) - 1, 1)
