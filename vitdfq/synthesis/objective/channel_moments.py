"""Mean and variance of channels over a batch, and distances between two such pairs."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

EPSILON = 1e-5  # added to variances before a division or logarithm, as in BatchNorm


class Moments(NamedTuple):
    """Mean and biased variance of each channel, (D,) each."""

    mean: Tensor
    variance: Tensor


def moments(values: Tensor, channel: int) -> Moments:
    """Return the moments over all dimensions but `channel`."""
    others = [dim for dim in range(values.ndim) if dim != channel % values.ndim]
    return Moments(values.mean(others), values.var(others, correction=0))


def standard(like: Moments) -> Moments:
    """Return mean 0 and variance 1 for as many channels as `like` has."""
    return Moments(torch.zeros_like(like.mean), torch.ones_like(like.variance))


def kl(measured: Moments, target: Moments) -> Tensor:
    """Return KL(N(measured) ‖ N(target)), mean over channels, 0-d. It is invariant to a common scale of both."""
    measured_variance, target_variance = measured.variance + EPSILON, target.variance + EPSILON
    spread = (measured_variance + (measured.mean - target.mean).square()) / target_variance
    return 0.5 * (target_variance.log() - measured_variance.log() + spread - 1).mean()


def mse(measured: Moments, target: Moments) -> Tensor:
    """Return the mean squared distance of means plus that of variances, 0-d. GDFQ's (arXiv 2003.03603)."""
    return (measured.mean - target.mean).square().mean() + (measured.variance - target.variance).square().mean()


def l2(measured: Moments, target: Moments) -> Tensor:
    """Return the Euclidean distance of means plus that of variances, 0-d. DeepInversion's (arXiv 1912.08795)."""
    distances = torch.stack([measured.mean - target.mean, measured.variance - target.variance])
    return torch.linalg.vector_norm(distances, dim=1).sum()


FORMS: dict[str, Callable[[Moments, Moments], Tensor]] = {"kl": kl, "mse": mse, "l2": l2}


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Return the Pearson correlations of the rows of (A, C) with those of (B, C), (A, B); 0 where a row is constant."""
    a, b = (normalize(rows - rows.mean(1, keepdim=True), dim=1) for rows in (a, b))
    return a @ b.mT
