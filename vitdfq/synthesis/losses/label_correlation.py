"""Images shall be predicted as different things (RIS-style)."""

from torch import Tensor

from vitdfq.synthesis.objective.channel_moments import pearson
from vitdfq.synthesis.objective.context import SynthContext


def label_correlation(ctx: SynthContext) -> Tensor:
    """Mean positive Pearson correlation of an image's prediction with those of the other images of the batch.

    RIS-style (arXiv 2310.03661): the paper's equations were not available to us; this is our reading of the abstract's small
    correlation in the label space. 0 for a batch of one. Returns (B,).
    """
    predictions = ctx.logits.softmax(1)
    correlation = pearson(predictions, predictions).relu()
    return (correlation.sum(1) - correlation.diagonal()) / max(len(correlation) - 1, 1)
