"""Random attention maps: Gaussian mixtures on the patch grid (SARDFQ's attention priors).

Implemented from the description in arXiv 2412.16553; constants that the paper does not give are those of a third-party
derivative.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vitdfq.common.lookup import lookup

MEAN_RANGE = 5.0  # component means are in (-5, 5)² whatever the grid spans, so some are off the map
MAX_VARIANCE = 5.0
# The derivative clips at 0, which allows singular covariances; a standard deviation of .22 is below the grid's spacing.
MIN_VARIANCE = 0.05

MIXTURES: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda density: density.amax(1),  # the derivative's: the highest component at each point
    "sum": lambda density: density.sum(1),
}
FLATTENINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda mixture: mixture.softmax(-1),  # the derivative's: nearly uniform, within a factor of e
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
    """Draw attention maps, each a mixture of Gaussians on a patch grid.

    Args:
        rng: the random stream.
        count: number of maps.
        grid: (height, width) in patches.
        max_components: each map has 1 to this many Gaussians.
        half_widths: each map's grid spans ±w on both axes, w drawn from these.
        mixture: a key of `MIXTURES`, how the components are combined.
        flatten: a key of `FLATTENINGS`, how the mixture becomes a distribution.

    Returns:
        (count, grid height · grid width), each row sums to 1.

    Raises:
        ValueError: an unknown mixture or flattening, or `max_components` below 1.
    """
    combine, normalize = lookup(mixture, MIXTURES, "mixture"), lookup(flatten, FLATTENINGS, "flattening")
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

    values = combine(density) + 1e-9  # a mixture far off the map becomes uniform
    return normalize(values / values.amax(-1, keepdim=True))


def _grid_points(grid: tuple[int, int]) -> Tensor:
    """Return the grid's points in [-1, 1]², (grid height · grid width, 2), row by row."""
    rows, columns = (torch.linspace(-1, 1, side) for side in grid)
    return torch.cartesian_prod(rows, columns)
