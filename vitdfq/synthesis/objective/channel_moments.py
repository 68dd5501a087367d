"""Mean and variance of channels over a batch, and how far two such pairs lie apart."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

EPSILON = 1e-5  # added to variances before they divide or enter a logarithm; what BatchNorm adds


class Moments(NamedTuple):
    """Of each channel, (D,) each; the variance is the biased one."""

    mean: Tensor
    variance: Tensor


def moments(values: Tensor, channel: int) -> Moments:
    """Return the moments over all dimensions but `channel`."""
    others = [dim for dim in range(values.ndim) if dim != channel % values.ndim]
    return Moments(values.mean(others), values.var(others, correction=0))


def standard(like: Moments) -> Moments:
    """Mean 0, variance 1 for as many channels."""
    return Moments(torch.zeros_like(like.mean), torch.ones_like(like.variance))


def kl(found: Moments, wanted: Moments) -> Tensor:
    """KL(N(found) ‖ N(wanted)), mean over channels; does not change where both are scaled alike."""
    found_variance, wanted_variance = found.variance + EPSILON, wanted.variance + EPSILON
    spread = (found_variance + (found.mean - wanted.mean).square()) / wanted_variance
    return 0.5 * (wanted_variance.log() - found_variance.log() + spread - 1).mean()


def mse(found: Moments, wanted: Moments) -> Tensor:
    """Mean squared distance of means plus that of variances: GDFQ's, arXiv 2003.03603."""
    return (found.mean - wanted.mean).square().mean() + (found.variance - wanted.variance).square().mean()


def l2(found: Moments, wanted: Moments) -> Tensor:
    """Euclidean distance of means plus that of variances: DeepInversion's, arXiv 1912.08795."""
    distances = torch.stack([found.mean - wanted.mean, found.variance - wanted.variance])
    return torch.linalg.vector_norm(distances, dim=1).sum()


FORMS: dict[str, Callable[[Moments, Moments], Tensor]] = {"kl": kl, "mse": mse, "l2": l2}


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """(A, C) and (B, C) -> (A, B); 0 where a row is constant."""
    a, b = (normalize(rows - rows.mean(1, keepdim=True), dim=1) for rows in (a, b))
    return a @ b.mT
