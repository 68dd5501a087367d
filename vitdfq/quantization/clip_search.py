"""Choose the clipping range with the least error: every candidate of every row in one vectorized pass."""

from collections.abc import Callable

import torch
from torch import Tensor

from vitdfq.quantization.functional import fake_quantize
from vitdfq.quantization.histogram import histogram
from vitdfq.quantization.observers import OBSERVERS, min_max

Cost = Callable[[Tensor], Tensor]  # a quantized tensor -> its error, 0-d

# One chunk of candidates: on a CPU it should fit the cache, on a GPU it should be large enough to use the whole device.
ELEMENTS_AT_ONCE = {"cpu": 2**18, "cuda": 2**24}
PRODUCT_ELEMENTS_AT_ONCE = 2**22  # a matrix product has the blocking of its kernel, which needs many rows
SHORTLIST = 16


@torch.no_grad()
def search_rows(
    rows: Tensor, bits: int, symmetric: bool, gram: Tensor | None = None, *, observer: str = "mse"
) -> tuple[Tensor, Tensor]:
    """Return (scale, zero_point), each (R, 1), for rows (R, M), a range for each row.

    For weights: many rows of few values. Min-max is among the candidates, so no result is worse than that.

    Args:
        rows: the weights, float32 or float64.
        bits, symmetric: of the grid.
        gram: (M, M) second moments E[x xᵀ] of the inputs that the rows multiply: the error of a row is then that of its output,
            Δ G Δᵀ, instead of Δ Δᵀ. Or (n, M, M), where row r meets the inputs of block r mod n.
        observer: a name in OBSERVERS: which ranges to try.

    Raises:
        ValueError: `gram` has another shape, or holds NaN or infinity.
    """
    blocks = None if gram is None else _blocks(gram, rows)
    propose = OBSERVERS[observer].rows if gram is None else OBSERVERS[observer].gram
    scales, zero_points = propose(rows, bits, symmetric)
    if scales.shape[1] == 1:
        return scales, zero_points
    if blocks is None:
        errors = weighted_errors(rows, None, scales, zero_points, bits)
    else:
        errors = gram_errors(rows, blocks, scales, zero_points, bits)
    best = errors.argmin(1, keepdim=True)
    return scales.gather(1, best), zero_points.gather(1, best)


@torch.no_grad()
def search_tensor(
    x: Tensor,
    bits: int,
    symmetric: bool,
    importance: Tensor | None = None,
    *,
    observer: str = "mse",
    cost: Cost | None = None,
    heads: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return (scale, zero_point), each (1, 1), for one range over all of `x`, or (H, 1): one for each head.

    For activations: a histogram represents the values, so that the time hardly depends on their number.

    Args:
        x: any shape; (..., C) with `importance`; (..., H, N, C) with `heads`.
        bits, symmetric: of the grid.
        importance: (C,), not negative: weight of a channel's squared error, for example the energy Σ_o W_oc² of the weight that
            reads it. A channel of importance zero does not widen the range either.
        observer: a name in OBSERVERS: which ranges to try.
        cost: decides among the candidates that the histogram finds best, and min-max; for one range only.
        heads: one range for each index of the third last dimension.

    Raises:
        ValueError: `importance` has another shape, is negative, NaN or infinite; `cost` with `heads`; a cost that is NaN.
    """
    if cost is not None and heads:
        raise ValueError("cost chooses one range for a whole tensor; with a range for each head it cannot")
    values = x.float()
    if importance is not None:
        values, importance = _important(values, importance)
    rows = values.movedim(-3, 0).flatten(1) if heads else values.reshape(1, -1)
    if not heads and rows.amin() == rows.amax():  # no histogram of a constant
        return min_max(rows, bits, symmetric)
    scales, zero_points = OBSERVERS[observer].tensor(rows, bits, symmetric)
    if scales.shape[1] == 1:
        return scales, zero_points
    centers, counts = histogram(rows, importance)
    errors = weighted_errors(centers, counts, scales, zero_points, bits)
    if cost is None:
        best = errors.argmin(1, keepdim=True)
    else:
        best = _cheapest(x, cost, shortlist(errors[0], scales[0], zero_points[0], bits), scales, zero_points, bits)
    return scales.gather(1, best), zero_points.gather(1, best)


def weighted_errors(rows: Tensor, counts: Tensor | None, scales: Tensor, zero_points: Tensor, bits: int) -> Tensor:
    """Squared error of each row (R, M), each value counted `counts` (R, M) times, on its candidate grids (R, K) -> (R, K)."""
    rows_at_once, grids_at_once = _chunk(rows, scales.shape[1])
    errors = torch.empty_like(scales)
    for first in range(0, len(rows), rows_at_once):
        part = slice(first, first + rows_at_once)
        values = rows[part, None, :]
        for grid in range(0, scales.shape[1], grids_at_once):
            at = part, slice(grid, grid + grids_at_once)
            squared = _errors(values, scales[at], zero_points[at], bits).square_()
            if counts is not None:
                squared *= counts[part, None, :]
            errors[at] = squared.sum(-1)
    return errors


def gram_errors(rows: Tensor, blocks: Tensor, scales: Tensor, zero_points: Tensor, bits: int) -> Tensor:
    """Δ G Δᵀ of each row (R, M), G = blocks[r mod n] of (n, M, M), on its candidate grids (R, K) -> (R, K)."""
    n, columns = blocks.shape[:2]
    errors = []
    at_once = max(1, PRODUCT_ELEMENTS_AT_ONCE // rows.numel())
    with torch.autocast(rows.device.type, enabled=False):
        for scale, zero_point in zip(scales.split(at_once, 1), zero_points.split(at_once, 1), strict=True):
            delta = _errors(rows[:, None, :], scale, zero_point, bits)  # (R, k, M)
            by_block = delta.unflatten(0, (-1, n)).transpose(0, 1).reshape(n, -1, columns)  # (n, R/n · k, M)
            energy = torch.bmm(by_block, blocks).mul_(by_block).sum(-1)
            errors.append(energy.view(n, -1, scale.shape[1]).transpose(0, 1).reshape(scale.shape))
    return torch.cat(errors, 1)


def shortlist(errors: Tensor, scales: Tensor, zero_points: Tensor, bits: int) -> Tensor:
    """Return the indices of the best SHORTLIST candidates (K,) -> (S,) that are not nearly the same grid, and of the last one.

    Neighbors in a fine search differ by a few percent in scale; of those within 10 % and a fifteenth of the codes only the best
    is kept, so that the cost is computed for grids that differ.
    """
    near = torch.stack([(scales.log() / 0.1).round(), (zero_points * (15 / (2**bits - 1))).round()], 1)
    order = errors.argsort(stable=True)
    kinds = torch.unique(near[order], dim=0, return_inverse=True)[1]
    position = torch.arange(len(order), device=order.device)
    first = torch.full_like(position, len(order)).scatter_reduce(0, kinds, position, "amin")  # best of each kind, then padding
    best = order[first[first < len(order)].sort().values[:SHORTLIST]]
    return torch.cat([best, best.new_tensor([len(order) - 1])])


def _cheapest(x: Tensor, cost: Cost, chosen: Tensor, scales: Tensor, zero_points: Tensor, bits: int) -> Tensor:
    costs = [float(cost(fake_quantize(x, scales[0, index], zero_points[0, index], bits))) for index in chosen.tolist()]
    if any(value != value for value in costs):
        raise ValueError("cost of a quantized tensor is NaN")
    return chosen[costs.index(min(costs))].view(1, 1)


def _errors(values: Tensor, scales: Tensor, zero_points: Tensor, bits: int) -> Tensor:
    """values (R, 1, M), grids (R, k) -> rounding errors (R, k, M)."""
    return fake_quantize(values, scales[..., None], zero_points[..., None], bits).sub_(values)


def _chunk(rows: Tensor, candidates: int) -> tuple[int, int]:
    """The number of rows, and of candidates of each, in one chunk."""
    most = ELEMENTS_AT_ONCE["cpu" if rows.device.type == "cpu" else "cuda"] // rows.shape[1]
    return max(1, most // candidates), max(1, min(candidates, most))


def _blocks(gram: Tensor, rows: Tensor) -> Tensor:
    """The Gram matrix as blocks (n, M, M)."""
    blocks = gram.to(rows) if gram.ndim == 3 else gram.to(rows)[None]
    columns = rows.shape[1]
    if blocks.ndim != 3 or blocks.shape[1:] != (columns, columns) or len(rows) % len(blocks):
        raise ValueError(f"gram has shape {tuple(gram.shape)}; rows of {columns} values need ({columns}, {columns})")
    if not blocks.isfinite().all():
        raise ValueError("gram holds NaN or infinity")
    return blocks


def _important(x: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
    """The channels of positive importance, and their importance, one on average; if there are none, all channels equally."""
    importance = importance.detach().to(x)
    if importance.shape != x.shape[-1:]:
        raise ValueError(f"importance has shape {tuple(importance.shape)}; values {tuple(x.shape)} need ({x.shape[-1]},)")
    if not importance.isfinite().all() or (importance < 0).any():
        raise ValueError("importance is negative, NaN or infinite")
    kept = importance > 0
    if not kept.any():
        return x, torch.ones_like(importance)
    return x[..., kept], importance[kept] / importance[kept].mean()
