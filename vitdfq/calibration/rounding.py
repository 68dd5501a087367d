"""AdaRound (arXiv 2004.10568): learn for each weight whether it is rounded up or down."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vitdfq.quantization.modules import QuantWeighted
from vitdfq.quantization.quantizers.base import Quantizer
from vitdfq.quantization.quantizers.forms import Affine

LOW, HIGH = -0.1, 1.1  # limits of the stretched sigmoid; it is clipped, so that a gate can reach 0 and 1


class SoftRounding(nn.Module):
    """Replaces a weight's quantizer while its rounding is learned: the grid value below the weight, plus a gate in [0, 1]."""

    affine = None  # the float weight takes no steps: the gates are learned instead

    def __init__(self, quantizer: Quantizer, grid: Affine, rows: Tensor) -> None:
        super().__init__()
        self.quantizer, self.grid = quantizer, grid
        steps = rows.detach() / grid.scale
        self.below = steps.floor()
        share = ((steps - self.below - LOW) / (HIGH - LOW)).clamp(1e-4, 1 - 1e-4)
        self.logit = nn.Parameter(torch.log(share / (1 - share)))  # the initial gates reproduce the float weight

    def gate(self) -> Tensor:
        """0 to 1 for each weight: rounded down, rounded up, or in between."""
        return (self.logit.sigmoid() * (HIGH - LOW) + LOW).clamp(0, 1)

    def forward(self, rows: Tensor) -> Tensor:
        return self._on_grid(self.gate())

    def regularizer(self, sharpness: float) -> Tensor:
        """Mean over weights of 1 - |2 gate - 1|^sharpness, 0-d: zero if every gate is 0 or 1."""
        return (1 - (2 * self.gate() - 1).abs().pow(sharpness)).mean()

    def rounded(self) -> Tensor:
        """The rows (R, M) on the grid, with each gate rounded to 0 or 1."""
        return self._on_grid((self.gate() >= 0.5).float())

    def _on_grid(self, gate: Tensor) -> Tensor:
        zero_point, scale = self.grid.zero_point, self.grid.scale
        codes = (self.below + gate + zero_point).clamp(0, 2**self.grid.bits - 1)
        return (codes - zero_point) * scale


@contextmanager
def learned_rounding(modules: list[QuantWeighted]) -> Iterator[list[SoftRounding]]:
    """Learn the rounding of each weight with a per-channel grid inside the block; after it these weights are on their grids."""
    replaced = [
        (module, SoftRounding(module.weight_quantizer, grid, module.weight.flatten(1)))
        for module in modules
        if (grid := module.weight_quantizer.affine) is not None and grid.group_size is None
    ]
    for module, soft in replaced:
        module.weight_quantizer = soft
    try:
        yield [soft for _, soft in replaced]
    finally:
        with torch.no_grad():
            for module, soft in replaced:
                module.weight_quantizer = soft.quantizer
                module.weight.copy_(soft.rounded().view_as(module.weight))
