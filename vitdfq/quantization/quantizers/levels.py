"""A sorted table of levels and the boundaries between them: the base class of adalog, shifted_log2 and twin.

A code is the number of boundaries below a value. That takes longer than a closed formula with log2 and round (15 against 6 ns
a value on one CPU core at 4 bits). In return every table, however irregular, is monotone and idempotent, and the exact error of
any number of candidate tables is computed from one sorted copy of the values.
"""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from vitdfq.quantization.clip_search import Cost
from vitdfq.quantization.quantizers.base import Quantizer, require_finite
from vitdfq.quantization.sample import sampled_values


class Levels(Quantizer):
    """Rounds to a table of levels that `fit` chooses among candidates; per tensor.

    A subclass names its `settings`, proposes candidates for them, and computes the table of given settings.

    Buffers, NaN until `fit`: `levels` (2^bits,) ascending where they are used, `boundaries` (2^bits - 1,) ascending, and one
    0-d buffer for each setting. The table is stored although it follows from the settings: its bits are then the same on every
    device.

    Args:
        bits: 2 to 8.
        shape: of the settings; only `()`, per tensor.
    """

    suits = frozenset({"softmax"})
    settings: ClassVar[tuple[str, ...]]
    signed: ClassVar[bool] = False  # negative values may be fitted
    descending: ClassVar[bool] = False  # code 0 is the highest level, as for the exponents of 2^-k
    bits: int
    levels: Tensor
    boundaries: Tensor

    def __init__(self, bits: int, *, shape: tuple[int, ...] = ()) -> None:
        super().__init__(bits, shape=shape)
        self.register_buffer("levels", torch.full((2**bits,), torch.nan))
        self.register_buffer("boundaries", torch.full((2**bits - 1,), torch.nan))
        for name in self.settings:
            self.register_buffer(name, torch.tensor(torch.nan))

    @abstractmethod
    def candidates(self, values: Tensor) -> Tensor:
        """Return the settings that `fit` compares, (K, len(settings)) float64, for sorted `values` (M,)."""

    @abstractmethod
    def tables(self, *settings: Tensor) -> tuple[Tensor, Tensor]:
        """Return levels (K, 2^bits) and boundaries (K, 2^bits - 1), float64, of settings (K, 1) each."""

    @torch.no_grad()
    def fit(self, x: Tensor, *, cost: Cost | None = None) -> None:
        """Choose the settings for values `x`, any shape.

        Args:
            x: the values to be quantized.
            cost: the error of a quantized `x` (same shape), 0-d, for example that of a product that reads it. Without it the sum
                of squared errors decides, of at most a million values of `x`.

        Raises:
            ValueError: `x` is empty, or holds NaN, infinity or, unless the quantizer is signed, negative values; a NaN cost.
        """
        if x.numel() == 0:
            raise ValueError(f"cannot fit a {type(self).__name__} quantizer on no values")
        require_finite(x, title=type(self).__name__, negative=self.signed)
        values = sampled_values(x.detach().float()).sort().values
        candidates = self.candidates(values)
        levels, boundaries = (table.float() for table in self.tables(*candidates.split(1, dim=1)))
        if cost is None:
            errors = squared_errors(values, levels, boundaries)
        else:
            errors = torch.stack([cost(_round(x, *table)) for table in zip(levels, boundaries, strict=True)])
        best = least(errors)
        self.levels.copy_(levels[best])
        self.boundaries.copy_(boundaries[best])
        for name, value in zip(self.settings, candidates[best], strict=True):
            getattr(self, name).copy_(value)

    def forward(self, x: Tensor) -> Tensor:
        """Fake quantization, same shape and dtype; the gradient is one between the outermost levels, zero beyond."""
        rounded = _round(x.detach(), self.levels, self.boundaries)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return rounded
        inside = x.where((x >= self.levels[0]) & (x <= self.levels[-1]), 0.0)  # clamp would halve the gradient of the ends
        return rounded + (inside - inside.detach())  # plus zero: the values stay the table's, bit for bit

    def codes(self, x: Tensor) -> Tensor:
        """Integer codes 0..2^bits - 1, as int32."""
        ranks = _ranks(x, self.boundaries).clamp(max=2**self.bits - 1)
        return self._reorder(ranks).to(torch.int32)

    def decode(self, codes: Tensor) -> Tensor:
        """Real values of integer codes; equals `forward` on the values the codes came from."""
        return self.levels[self._reorder(codes.long())]

    def check(self) -> None:
        if (self.boundaries.diff() < 0).any():
            raise ValueError("boundaries are not sorted")

    def _reorder(self, codes: Tensor) -> Tensor:
        return 2**self.bits - 1 - codes if self.descending else codes


def least(costs: Tensor) -> Tensor:
    """Return the index, 0-d, of the least of `costs` (K,), the first of equals.

    Raises:
        ValueError: one of them is NaN.
    """
    if costs.isnan().any():
        raise ValueError("cost of a quantized tensor is NaN")
    return costs.argmin()


def squared_errors(values: Tensor, levels: Tensor, boundaries: Tensor) -> Tensor:
    """Return the sum of squared errors (K,) of sorted `values` (M,) rounded to each of K tables.

    A cell holds a run of the sorted values, so n, Σv and Σv² of all cells are differences of running sums: the work is K·2^bits
    binary searches, independent of M.
    """
    exact = values.double()
    moments = torch.stack([torch.ones_like(exact), exact, exact**2])
    running = F.pad(moments.cumsum(1), (1, 0))  # (3, M + 1)
    ends = torch.searchsorted(values, boundaries.contiguous(), right=True)  # a value on a boundary belongs below, as in _ranks
    ends = F.pad(F.pad(ends, (0, 1), value=values.numel()), (1, 0))
    count, total, square = running[:, ends].diff(dim=-1)
    return (square - 2 * levels * total + levels.double() ** 2 * count).sum(-1)


def _round(x: Tensor, levels: Tensor, boundaries: Tensor) -> Tensor:
    # bucketize puts NaN above every boundary, infinity included, and so in a cell of its own, whose level is NaN.
    return F.pad(levels, (0, 1), value=torch.nan).take(_ranks(x, boundaries)).to(x.dtype)


def _ranks(x: Tensor, boundaries: Tensor) -> Tensor:
    edges = F.pad(boundaries, (0, 1), value=torch.inf)
    return torch.bucketize(x.to(edges.dtype).contiguous(), edges)
