"""Outputs of softmax and GELU on grids of unequal steps, as planes of int8 values: shifts, and lookups in small tables."""

import torch
from torch import Tensor

from vitdfq.quantization.integer.codes import Codes, Plane, parts
from vitdfq.quantization.quantizers.base import Quantizer
from vitdfq.quantization.quantizers.forms import PLANE_BITS, Octaves, Tables, Twin


class LogCodes(Codes):
    """log2 and log-sqrt2 as shifts: a plane holds the powers of two of seven octaves; odd codes of log-sqrt2 have planes of
    their own.

    Only octaves that occur get planes: softmax rows of 197 tokens rarely reach beyond twenty of the 32 octaves of 6 bits.
    """

    def __init__(self, quantizer: Quantizer, grid: Octaves, shift: Tensor | None = None) -> None:
        super().__init__(grid.num_planes, shift)
        self.quantizer, self.grid, self.code_of_zero = quantizer, grid, 2**grid.bits - 1

    def forward(self, x: Tensor) -> list[Plane]:
        x, scale = self.shifted(x), self.grid.scale
        signed = torch.empty_like(x, dtype=torch.int8)
        for part, to in parts(x, signed):
            to.copy_(self.quantizer.codes(part))
        codes = signed.view(torch.uint8)  # 0..63: differences of bytes wrap around instead of becoming negative
        last = max(0, int((codes + 1).bitwise_and_(self.code_of_zero).amax()) - 1)  # zero's code is in no plane
        first = min(int(codes.amin()), last)
        if self.grid.steps_per_octave == 1:
            return _powers(codes, scale, first, last)
        octaves, odd = codes >> 1, (codes & 1) << PLANE_BITS  # adding 2^7 moves an octave out of all planes
        even_planes = _powers(octaves + odd, scale, first // 2, last // 2)
        return even_planes + _powers(octaves + (odd ^ 2**PLANE_BITS), scale * 0.5**0.5, first // 2, (last - 1) // 2)


def _powers(octaves: Tensor, scale: float, first: int, last: int) -> list[Plane]:
    """Planes of scale * 2^-octave for octaves first to last; further ones are zero."""
    one = torch.tensor(2 ** (PLANE_BITS - 1), dtype=torch.uint8, device=octaves.device)
    planes = []
    for end in range(last, first - 1, -PLANE_BITS):
        shifts = (octaves + (PLANE_BITS - 1 - end) % 256).clamp_max_(PLANE_BITS)
        planes.append(Plane((one >> shifts).view(torch.int8), 0.0, scale * 2.0**-end))
    return planes


class TableCodes(Codes):
    """Codes whose levels are sums of table entries: a plane for each table."""

    integers: Tensor

    def __init__(self, quantizer: Quantizer, grid: Tables | Twin, shift: Tensor | None = None) -> None:
        super().__init__(grid.num_planes, shift)
        device = next((value.device for value in quantizer.buffers()), None)
        self.quantizer, self.grid, self.units = quantizer, grid, [unit for _, unit in grid.tables]
        integers = torch.tensor([integers for integers, _ in grid.tables], dtype=torch.int8, device=device)
        self.register_buffer("integers", integers)  # (planes, codes)

    def forward(self, x: Tensor) -> list[Plane]:
        x = self.shifted(x)
        planes = [Plane(torch.empty_like(x, dtype=torch.int8), 0.0, unit) for unit in self.units]
        for plane, table in zip(planes, self.integers, strict=True):
            for part, to in parts(x, plane.values):
                to.copy_(table.index_select(0, self.quantizer.codes(part).flatten()).view(part.shape))
        return planes
