"""Find the clipping range with the least squared error: every candidate of every row in one vectorised pass."""

import torch
from torch import Tensor

from vitdfq.quantization.functional import choose_qparams, fake_quantize

ELEMENTS_AT_ONCE = 2**23  # bounds the memory of one chunk of candidates
HISTOGRAM_BINS = 2048


@torch.no_grad()
def search_rows(rows: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Return (scale, zero_point), each (R, 1), for rows (R, M): the row's own range, shrunk by one factor of 80.

    Suits weights: many rows of few values. Min-max is among the candidates, so it is never worse.
    """
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    shrink = torch.linspace(0.35, 1.0, 80, device=rows.device, dtype=rows.dtype)
    return _search(rows, None, low * shrink, high * shrink, bits, symmetric)


@torch.no_grad()
def search_tensor(x: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Return (scale, zero_point), each (1, 1), for one range over all of `x`, both ends shrunk independently.

    Suits activations: a 2048-bin histogram stands for the values, so that the cost does not depend on their number.
    """
    low, high = x.amin().item(), x.amax().item()
    if low == high:  # no histogram of a constant
        edge = x.new_tensor([[low]])
        return choose_qparams(edge, edge, bits, symmetric)
    counts = torch.histc(x.float(), HISTOGRAM_BINS, low, high)
    width = (high - low) / HISTOGRAM_BINS
    centres = low + width * (torch.arange(HISTOGRAM_BINS, device=x.device) + 0.5)
    shrink = torch.logspace(-1.7, 0.0, 32, device=x.device)
    lows, highs = torch.meshgrid(min(low, 0.0) * shrink, max(high, 0.0) * shrink, indexing="ij")
    return _search(centres[None], counts[None], lows.reshape(1, -1), highs.reshape(1, -1), bits, symmetric)


def _search(
    rows: Tensor, counts: Tensor | None, lows: Tensor, highs: Tensor, bits: int, symmetric: bool
) -> tuple[Tensor, Tensor]:
    """rows (R, M), counts (R, M), candidates (R, K) -> the best (scale, zero_point) of each row, (R, 1)."""
    scales, zero_points = choose_qparams(lows, highs, bits, symmetric)
    at_once = max(1, ELEMENTS_AT_ONCE // rows.numel())
    errors = []
    for scale, zero_point in zip(scales.split(at_once, 1), zero_points.split(at_once, 1), strict=True):
        values = rows[:, None, :].expand(-1, scale.shape[1], -1)
        squared = (fake_quantize(values, scale[..., None], zero_point[..., None], bits) - values) ** 2
        errors.append((squared if counts is None else squared * counts[:, None, :]).sum(-1))
    best = torch.cat(errors, 1).argmin(1, keepdim=True)
    return scales.gather(1, best), zero_points.gather(1, best)
