"""Random attention maps: Gaussian mixtures on the patch grid (SARDFQ's attention priors).

As described in arXiv 2412.16553, whose code is not public; constants are from a third-party derivative where the paper
is silent.
"""

import math

import torch
from torch import Tensor

from vitdfq.common.lookup import lookup

MEAN_RANGE = 5.0  # component means lie in (-5, 5)² whatever the grid spans, so some lie off the map
MAX_VARIANCE = 5.0
# The derivative clips at 0, which leaves singular covariances; a deviation of .2 is below the spacing of the grid.
MIN_VARIANCE = 0.05

MIXTURES = {
    "max": lambda density: density.amax(1),  # the derivative's: the highest component at every point
    "sum": lambda density: density.sum(1),
}
FLATTENINGS = {
    "softmax": lambda mixture: mixture.softmax(-1),  # the derivative's: nearly uniform, at most e times the lowest
    "raw": lambda mixture: mixture / mixture.sum(-1, keepdim=True),
}


def gaussian_mixture_maps(
    rng: torch.Generator,
    count: int,
    grid: tuple[int, int],
    *,
    max_components: int,
    half_widths: tuple[float, ...],
    mixture: str = "max",
    flatten: str = "softmax",
) -> Tensor:
    """Draw `count` attention maps of 1 to `max_components` Gaussians each on a grid over ±w, w from `half_widths`.

    Returns:
        (count, grid height · grid width), each row sums to 1.
    """
    combine, normalise = lookup(mixture, MIXTURES, "mixture"), lookup(flatten, FLATTENINGS, "flattening")
    if max_components < 1:
        raise ValueError(f"max_components must be at least 1, got {max_components}")
    shape = (count, max_components)
    num_components = torch.randint(1, max_components + 1, (count, 1), generator=rng)
    means = (2 * torch.rand(*shape, 2, generator=rng) - 1) * MEAN_RANGE
    factors = torch.rand(*shape, 2, 2, generator=rng) * 10
    chosen_widths = torch.tensor(half_widths)[torch.randint(len(half_widths), (count,), generator=rng)]

    variances, axes = torch.linalg.eigh(factors @ factors.mT)
    variances = variances.clamp(MIN_VARIANCE, MAX_VARIANCE)  # (count, components, 2)
    points = _grid_points(grid) * chosen_widths[:, None, None]  # (count, n, 2)
    along_axes = (points[:, None] - means[:, :, None]) @ axes  # (count, components, n, 2)
    distance = (along_axes.square() / variances[:, :, None]).sum(-1)
    density = torch.exp(-distance / 2) / (2 * math.pi * variances.prod(-1, keepdim=True).sqrt())
    density = density * (torch.arange(max_components) < num_components)[:, :, None]

    values = combine(density) + 1e-9  # a mixture far off the map leaves a uniform one
    return normalise(values / values.amax(-1, keepdim=True))


def _grid_points(grid: tuple[int, int]) -> Tensor:
    """The grid's points in [-1, 1]², (grid height · grid width, 2), row by row."""
    rows, columns = (torch.linspace(-1, 1, side) for side in grid)
    return torch.cartesian_prod(rows, columns)
