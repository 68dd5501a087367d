"""The pixels of a batch shall have the mean and deviation that normalised images have."""

from torch import Tensor

from vitdfq.synthesis.objective.channel_moments import EPSILON, moments
from vitdfq.synthesis.objective.context import SynthContext


def input_statistics(ctx: SynthContext) -> Tensor:
    """Squared distance of each channel's mean to 0 and deviation to 1, over batch and pixels, summed over channels.

    The teacher's normalisation made real images so; ZeroQ (arXiv 2001.00281) asks for it as well. An image alone need not be
    so: every image of the batch carries the value of the whole, so that a weight means what it does for other losses.
    Returns (B,).
    """
    found = moments(ctx.images, channel=1)
    value = found.mean.square().sum() + ((found.variance + EPSILON).sqrt() - 1).square().sum()
    return value.expand(len(ctx.images))
