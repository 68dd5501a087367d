"""Samples of many values, drawn at random: a constant stride can coincide with rows or channels and miss most of them."""

import torch
from torch import Tensor

VALUES = 2**20


def sampled(x: Tensor, most: int, dim: int = 0) -> Tensor:
    """Return `x` with at most `most` slices along `dim`, the same ones for every tensor of this size."""
    if x.shape[dim] <= most:
        return x
    rng = torch.Generator().manual_seed(0)
    return x.index_select(dim, torch.randint(x.shape[dim], (most,), generator=rng).to(x.device))


def sampled_values(x: Tensor) -> Tensor:
    """Return at most 2^20 + 2 values (M,) of `x` (any shape, not empty), its minimum and maximum among them."""
    values = x.flatten()
    return values if len(values) <= VALUES else torch.cat([sampled(values, VALUES), torch.stack(values.aminmax())])
