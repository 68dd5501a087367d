"""AdaRound (arXiv 2004.10568): learn for each weight whether it is rounded up or down."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vitdfq.quantization.modules import QuantWeighted
from vitdfq.quantization.quantizers.uniform import Uniform

LOW, HIGH = -0.1, 1.1  # limits of the stretched sigmoid; it is clipped, so that a gate can reach 0 and 1


class SoftRounding(nn.Module):
    """Replaces a weight's quantizer while its rounding is learned: the grid value below the weight, plus a gate in [0, 1]."""

    def __init__(self, quantizer: Uniform, rows: Tensor) -> None:
        super().__init__()
        self.quantizer = quantizer
        steps = rows.detach() / quantizer.scale
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
        zero_point, scale = self.quantizer.zero_point, self.quantizer.scale
        codes = (self.below + gate + zero_point).clamp(0, 2**self.quantizer.bits - 1)
        return (codes - zero_point) * scale


@contextmanager
def learned_rounding(modules: list[QuantWeighted]) -> Iterator[list[SoftRounding]]:
    """Learn the rounding of each weight with a per-channel grid inside the block; after it these weights are on their grids."""
    replaced = [
        (module, SoftRounding(module.weight_quantizer, module.weight.flatten(1)))
        for module in modules
        if isinstance(module.weight_quantizer, Uniform) and module.weight_quantizer.group_size is None
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
