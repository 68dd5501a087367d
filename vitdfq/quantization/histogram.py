"""Histograms represent the values of an activation, so that a range search takes the same time for any number of tokens."""

import torch
from torch import Tensor

BINS = 2048
VALUES_AT_ONCE = 2**22  # bounds the memory of bin indices


def histogram(rows: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return (centers, counts), each (R, BINS), of rows (R, M) between the minimum and maximum of each row.

    Args:
        rows: finite values; all bins of a constant row lie at that constant.
        importance: (C,) weights of the channels, which are the fastest index along a row; C divides M. Counts are weighted sums.
    """
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    width = (high - low) / BINS
    centers = low + width * (torch.arange(BINS, device=rows.device) + 0.5)
    return centers, _counts(rows, low, high, importance)


def _counts(rows: Tensor, low: Tensor, high: Tensor, importance: Tensor | None) -> Tensor:
    span = (high - low).clamp(min=torch.finfo(rows.dtype).tiny)
    first_bin = BINS * torch.arange(len(rows), device=rows.device)[:, None]
    channels = 1 if importance is None else len(importance)
    at_once = max(1, VALUES_AT_ONCE // (len(rows) * channels)) * channels  # whole tokens
    counts = rows.new_zeros(len(rows) * BINS, dtype=torch.float64)  # float64: the order of summation has no effect
    for part in rows.split(at_once, 1):
        bins = ((part - low) / span * BINS).long().clamp_(0, BINS - 1) + first_bin
        weights = None if importance is None else importance.double().repeat(len(rows), part.shape[1] // channels).flatten()
        counts += torch.bincount(bins.flatten(), weights, minlength=len(counts))
    return counts.view(len(rows), BINS).float()
