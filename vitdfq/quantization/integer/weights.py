"""The weight of a layer as int8 and its product with int8 activations."""

from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.quantization.integer.backends import (
    float_product,
    fused_pack,
    fused_product,
    fused_works,
    int8_product,
    int8_works,
)
from vitdfq.quantization.integer.codes import MIDDLE, Plane
from vitdfq.quantization.modules import QuantWeighted


class IntegerWeight(nn.Module):
    """A weight (out, in) as int8, in G groups of columns with a scale each; G is 1 unless the quantizer has a group size.

    With values a and zero z of activations, values w and zeros d of weights, and n the sum of a row's w - d:

        Σ (a - z)(w - d) = Σ a w - z n - d Σ a

    d is zero, and the last term absent, for symmetric weights and for all of fewer than 8 bits: their w is code - zero_point.
    """

    values: Tensor
    scale: Tensor
    zero: Tensor
    row_sum: Tensor
    no_zeros: Tensor

    def __init__(self, layer: QuantWeighted) -> None:
        super().__init__()
        grid, rows = layer.weight_quantizer.affine, layer.weight.flatten(1)
        assert grid is not None  # `integer_form` leaves other weights simulated
        scale = grid.scale.expand(len(rows), -1) if grid.scale.ndim else grid.scale.expand(len(rows), 1)
        zero_point = grid.zero_point.to(torch.int32).expand_as(scale)[..., None]
        codes = layer.weight_quantizer.codes(rows).unflatten(1, (scale.shape[1], -1))  # (out, G, columns)
        numbers = codes - zero_point
        fits = (numbers >= -MIDDLE).all(-1, keepdim=True) & (numbers < MIDDLE).all(-1, keepdim=True)
        zero = torch.where(fits, 0, zero_point - MIDDLE)
        self.register_buffer("values", (numbers + zero).to(torch.int8).transpose(0, 1).contiguous())  # (G, out, columns)
        self.register_buffer("scale", scale.t().contiguous())  # (G, out)
        self.register_buffer("zero", zero[..., 0].t().contiguous())  # (G, out) int32
        self.register_buffer("row_sum", numbers.sum(-1, dtype=torch.int32).t().contiguous())  # (G, out)
        self.register_buffer("no_zeros", torch.zeros(len(rows), dtype=torch.int64))
        self.has_zeros = bool(zero.any())
        self._packed: list[Tensor] | None = None

    def forward(self, plane: Plane, bias: Tensor | None) -> Tensor:
        """The real product of a plane (T, in) and the weight, float32 (T, out)."""
        if isinstance(plane.factor, Tensor):
            return self._by_token(plane.values, plane.zero, plane.factor, bias)
        return self._sum(plane.values, int(plane.zero), plane.factor, bias)

    def _by_token(self, values: Tensor, zero: float | Tensor, factor: Tensor, bias: Tensor | None) -> Tensor:
        product = self._sum(values, 0, 1.0, None)
        if isinstance(zero, Tensor):
            product.addcmul_(zero, (self.row_sum * self.scale).sum(0), value=-1)
        product.mul_(factor)
        return product if bias is None else product.add_(bias)

    def _sum(self, values: Tensor, zero: int, factor: float, bias: Tensor | None) -> Tensor:
        columns = values.split(self.values.shape[2], dim=1)
        total = self._group(0, columns[0], zero, factor, bias)
        for group in range(1, len(columns)):
            total.add_(self._group(group, columns[group], zero, factor, None))
        return total

    def _group(self, group: int, a: Tensor, zero: int, factor: float, bias: Tensor | None) -> Tensor:
        a, scale, device = a.contiguous(), self.scale[group], a.device.type
        if fused_works(device):
            product = fused_product(a, zero, factor, self._packs()[group], scale, self.no_zeros, bias)
            if self.has_zeros:
                sums = a.sum(1, dtype=torch.int32) - zero * a.shape[1]
                product.addr_(sums.float(), self.zero[group] * scale, alpha=-factor)
            return product
        numbers = self._numbers(group, a, zero).float().mul_(factor * scale)
        return numbers if bias is None else numbers.add_(bias)

    def _numbers(self, group: int, a: Tensor, zero: int) -> Tensor:
        """The product of a group before it is scaled: whole numbers, int32 or float."""
        w = self.values[group]
        if not int8_works(a.device.type):
            largest = 4 * MIDDLE**2 * a.shape[1]
            return float_product(a.float() - zero, (w - self.zero[group][:, None]).t(), largest)
        numbers = int8_product(a, w.t())
        if zero:
            numbers.sub_(zero * self.row_sum[group])
        if self.has_zeros:
            numbers.sub_(torch.outer(a.sum(1, dtype=torch.int32), self.zero[group]))
        return numbers

    def _packs(self) -> list[Tensor]:
        if self._packed is None:
            self._packed = [fused_pack(values) for values in self.values]
        return self._packed

    def _apply(self, fn: Any, recurse: bool = True) -> "IntegerWeight":
        self._packed = None  # packed again on another device
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}  # opaque: cannot be copied

    def extra_repr(self) -> str:
        groups, out, columns = self.values.shape
        return f"{out} x {groups * columns}, {groups} groups"
