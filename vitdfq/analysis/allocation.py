"""Bits by layer under a budget: an integer program over the measured errors of each layer at each number of bits."""

from collections.abc import Mapping
from itertools import pairwise

from vitdfq.common.errors import RecipeError

Table = Mapping[str, Mapping[int, float]]  # layer -> bits -> a number


def allocate(errors: Table, costs: Table, budget: float) -> dict[str, int]:
    """Return the bits of each layer whose sum of errors is smallest among all choices whose sum of costs is within the budget.

    Errors of layers are taken to add up, which holds while they are small. More bits never count as a larger error, whatever
    was measured.

    Args:
        errors: layer -> bits -> error, at least 0.
        costs: layer -> bits -> cost, at least 0, for the same layers and bits.
        budget: of the same unit as the costs.

    Raises:
        ValueError: no choice is within the budget; the message says what the least would be.
        RecipeError: scipy is not installed.
    """
    least = sum(min(row.values()) for row in costs.values())
    if least > budget:
        raise ValueError(f"{budget:.6g} is less than the least that is possible, {least:.6g}")
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ImportError:
        raise RecipeError("a budget needs scipy: pip install 'vitdfq[analyze]'") from None
    choices = [(layer, bits) for layer, row in errors.items() for bits in row]
    smoothed = {layer: _falling(row) for layer, row in errors.items()}
    values = [smoothed[layer][bits] for layer, bits in choices]
    weights = [costs[layer][bits] for layer, bits in choices]
    once = [[float(layer == other) for layer, _ in choices] for other in errors]
    result = milp(
        [value / (max(values) or 1.0) for value in values],  # of the order of one: the solver has absolute tolerances
        constraints=[LinearConstraint([[weight / budget for weight in weights]], ub=1), LinearConstraint(once, lb=1, ub=1)],
        integrality=[1] * len(choices),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if result.x is None:
        raise ValueError(f"no allocation was found: {result.message}")
    bits_of = {layer: bits for (layer, bits), share in zip(choices, result.x, strict=True) if share > 0.5}
    return _within(bits_of, costs, budget)


def _falling(row: Mapping[int, float]) -> dict[int, float]:
    """The errors by bits, each at least as large as that of more bits."""
    result = dict(sorted(row.items(), reverse=True))
    for more, fewer in pairwise(result):
        result[fewer] = max(result[fewer], result[more])
    return result


def _within(bits_of: dict[str, int], costs: Table, budget: float) -> dict[str, int]:
    """Take bits from the layers where it frees least until the budget holds exactly: the solver's tolerance is 1e-6 of it."""
    while sum(costs[layer][bits] for layer, bits in bits_of.items()) > budget:
        steps = {
            layer: max((fewer for fewer in costs[layer] if costs[layer][fewer] < costs[layer][bits]), default=None)
            for layer, bits in bits_of.items()
        }
        possible = {layer: fewer for layer, fewer in steps.items() if fewer is not None}
        layer = min(possible, key=lambda name: costs[name][bits_of[name]] - costs[name][possible[name]])
        bits_of[layer] = possible[layer]
    return bits_of
