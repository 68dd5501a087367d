"""Observers: which ranges to try. The choice among them, by error, is made in `clip_search.py`.

A function here takes rows (R, M) and returns candidate grids (scales, zero_points), each (R, K); the last candidate covers the
minimum and maximum of the row, so that no search is worse than min-max by its measure.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vitdfq.quantization.functional import choose_qparams
from vitdfq.quantization.sample import sampled

Grids = tuple[Tensor, Tensor]
Propose = Callable[[Tensor, int, bool], Grids]  # (rows, bits, symmetric)

SAMPLE = 2**20  # values of a row for a quantile: torch.quantile sorts, and refuses more than 2^24


@dataclass(frozen=True)
class Observer:
    """The ranges that one observer proposes.

    Attributes:
        summary: in one line.
        rows: for weights, many rows of few values.
        gram: for weights whose error is measured on the layer's inputs; fewer scales, as each costs a product with the Gram
            matrix.
        tensor: for activations, few rows of many values.
        guided: it requires a measure of the output's error: a Gram matrix, importance or cost.
    """

    summary: str
    rows: Propose
    gram: Propose
    tensor: Propose
    guided: bool = False


@torch.no_grad()
def min_max(rows: Tensor, bits: int, symmetric: bool) -> Grids:
    """One candidate for each row: its minimum to its maximum."""
    return choose_qparams(rows.amin(1, keepdim=True), rows.amax(1, keepdim=True), bits, symmetric)


@torch.no_grad()
def percentiles_of_rows(rows: Tensor, bits: int, symmetric: bool) -> Grids:
    """Quantiles p and 1 - p of each row, from 0.97: a weight's row has few values, and its tails are short."""
    return _percentiles(rows, bits, symmetric, (0.97, 0.98, 0.99, 0.995, 0.999, 0.9999))


@torch.no_grad()
def percentiles_of_tensor(rows: Tensor, bits: int, symmetric: bool) -> Grids:
    """Quantiles p and 1 - p of each row, from 0.999; of a random million of its values (always the same) where it has more."""
    return _percentiles(rows, bits, symmetric, (0.999, 0.9999, 0.99999))


@torch.no_grad()
def shrink_together(rows: Tensor, bits: int, symmetric: bool) -> Grids:
    """The range of the row, shrunk by each of 80 factors."""
    return _shrunk(rows, bits, symmetric, 80)


@torch.no_grad()
def shrink_and_shift(rows: Tensor, bits: int, symmetric: bool) -> Grids:
    """The range of the row, shrunk by each of 28 factors; asymmetric grids also with the zero point one code lower and higher."""
    scales, zero_points = _shrunk(rows, bits, symmetric, 28)
    if symmetric:
        return scales, zero_points
    shifts = torch.tensor([-1.0, 1.0, 0.0], device=rows.device)[:, None]
    return scales.repeat(1, 3), (zero_points[:, None, :] + shifts).clamp(0, 2**bits - 1).flatten(1)


@torch.no_grad()
def shrink_apart(rows: Tensor, bits: int, symmetric: bool) -> Grids:
    """Both ends of the range shrunk by 32 factors each, log-spaced down to 1/50: activations have far outliers on one side."""
    shrink = torch.logspace(-1.7, 0.0, 32, device=rows.device)
    lows = rows.amin(1).clamp(max=0)[:, None, None] * shrink[:, None]
    highs = rows.amax(1).clamp(min=0)[:, None, None] * shrink
    lows, highs = torch.broadcast_tensors(lows, highs)
    return choose_qparams(lows.flatten(1), highs.flatten(1), bits, symmetric)


OBSERVERS = {
    "min_max": Observer("The minimum to the maximum", rows=min_max, gram=min_max, tensor=min_max),
    "percentile": Observer(
        "Between two quantiles, of a few pairs that with the least squared error of the values",
        rows=percentiles_of_rows,
        gram=percentiles_of_rows,
        tensor=percentiles_of_tensor,
    ),
    "mse": Observer(
        "The whole range or a smaller one, of many that with the least squared error of the values",
        rows=shrink_together,
        gram=shrink_and_shift,
        tensor=shrink_apart,
    ),
    "output_error": Observer(
        "The same ranges as mse, of these that with the least squared error of the layer's output",
        rows=shrink_together,
        gram=shrink_and_shift,
        tensor=shrink_apart,
        guided=True,
    ),
}


def _shrunk(rows: Tensor, bits: int, symmetric: bool, factors: int) -> Grids:
    shrink = torch.linspace(0.35, 1.0, factors, device=rows.device, dtype=rows.dtype)
    return choose_qparams(rows.amin(1, keepdim=True) * shrink, rows.amax(1, keepdim=True) * shrink, bits, symmetric)


def _percentiles(rows: Tensor, bits: int, symmetric: bool, shares: tuple[float, ...]) -> Grids:
    values = sampled(rows, SAMPLE, dim=1)
    upper = torch.tensor(shares, device=rows.device, dtype=rows.dtype)
    highs, lows = torch.quantile(values, upper, dim=1).T, torch.quantile(values, 1 - upper, dim=1).T
    lows = torch.cat([lows, rows.amin(1, keepdim=True)], 1)
    highs = torch.cat([highs, rows.amax(1, keepdim=True)], 1)
    return choose_qparams(lows, highs, bits, symmetric)
