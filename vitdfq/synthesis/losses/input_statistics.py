"""The pixels of a batch have mean 0 and standard deviation 1, as normalized images have."""

from torch import Tensor

from vitdfq.synthesis.objective.channel_moments import EPSILON, moments
from vitdfq.synthesis.objective.context import SynthContext


def input_statistics(ctx: SynthContext) -> Tensor:
    """Return Σ_c μ_c² + (σ_c - 1)², of each channel's mean and standard deviation over batch and pixels. (B,)

    The teacher's normalization gives the training images these statistics. ZeroQ (arXiv 2001.00281) has this loss too. A single
    image may differ, so every image gets the value of the whole batch; a weight has the same scale as for other losses.
    """
    measured = moments(ctx.images, channel=1)
    value = measured.mean.square().sum() + ((measured.variance + EPSILON).sqrt() - 1).square().sum()
    return value.expand(len(ctx.images))
