"""Any monotone quantizer of single values as a table of levels and exact boundaries, determined by calling the quantizer."""

import torch
from torch import Tensor, nn

from vitdfq.common.errors import ExportError, one_line
from vitdfq.quantization.quantizers.base import Quantizer


class Table(nn.Module):
    """Rounds to the levels of a per-tensor, monotone, idempotent quantizer, by bisection: two gathers for each bit and value.

    Buffers: `levels` (2^steps,) and `boundaries` (2^steps - 1,), ascending, the last ones repeated; a value on a boundary is
    rounded to the level below.

    Raises:
        ExportError: the quantizer is not per tensor, monotone and idempotent.
    """

    levels: Tensor
    boundaries: Tensor

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        levels = levels_of(quantizer)
        boundaries = boundaries_of(quantizer, levels)
        _require_equal(quantizer, levels, boundaries)
        self.steps = max(1, (len(levels) - 1).bit_length())
        missing = 2**self.steps - len(levels)
        self.register_buffer("levels", torch.cat([levels, levels[-1:].expand(missing)]))
        self.register_buffer("boundaries", torch.cat([boundaries, torch.full((missing,), torch.inf)]))

    def forward(self, x: Tensor) -> Tensor:
        step = 2 ** (self.steps - 1)
        rank = (x > self.boundaries[step - 1]).to(torch.int64) * step
        while step > 1:
            step //= 2
            rank = rank + (x > self.boundaries[rank + (step - 1)]).to(torch.int64) * step
        return self.levels[rank]


@torch.no_grad()
def levels_of(quantizer: Quantizer) -> Tensor:
    """Return the levels (n,) that values are rounded to, ascending, n <= 2^bits."""
    assert quantizer.bits is not None
    try:
        codes = torch.arange(2**quantizer.bits, dtype=torch.int32, device=_device(quantizer))
        levels = quantizer.decode(codes).float().cpu().unique()
        used = levels[_rounded(quantizer, levels) == levels]  # some tables have levels that no value is rounded to
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ExportError(f"{type(quantizer).__name__} has no ONNX form: {one_line(error)}") from error
    if not len(used):
        raise ExportError(f"{type(quantizer).__name__} has no ONNX form: its levels are not rounded to themselves")
    return used


@torch.no_grad()
def boundaries_of(quantizer: Quantizer, levels: Tensor) -> Tensor:
    """Return for each level but the last the largest float32 that is rounded to it or below, (n - 1,)."""
    low, high = _ordinal(levels[:-1]), _ordinal(levels[1:])
    while (high - low > 1).any():
        middle = (low + high) // 2
        below = _rounded(quantizer, _from_ordinal(middle)) <= levels[:-1]
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return _from_ordinal(low)


@torch.no_grad()
def _require_equal(quantizer: Quantizer, levels: Tensor, boundaries: Tensor) -> None:
    """Try the table on values all over its range: a grid that depends on other values, or is not monotone, differs."""
    generator = torch.Generator().manual_seed(0)
    spread = levels[0] + (levels[-1] - levels[0]) * torch.rand(4096, generator=generator)
    small = spread * torch.exp2(-16 * torch.rand(4096, generator=generator))
    values = torch.cat([levels, boundaries, spread, small.clamp(levels[0], levels[-1])])
    if not torch.equal(levels[torch.bucketize(values, boundaries)], _rounded(quantizer, values)):
        raise ExportError(f"{type(quantizer).__name__} has no ONNX form: it is not a monotone function of each value")


def _rounded(quantizer: Quantizer, values: Tensor) -> Tensor:
    return quantizer(values.to(_device(quantizer))).float().cpu()


def _device(quantizer: Quantizer) -> torch.device:
    return next((buffer.device for buffer in quantizer.buffers()), torch.device("cpu"))


def _ordinal(x: Tensor) -> Tensor:
    """Integers in the order of float32 values, neighbors differ by one."""
    bits = x.view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _from_ordinal(ordinal: Tensor) -> Tensor:
    bits = torch.where(ordinal < 0, -ordinal | 0x80000000, ordinal)
    return torch.where(bits >= 2**31, bits - 2**32, bits).to(torch.int32).view(torch.float32)
