"""The integer student, and its modules in place of QuantLinear, QuantConv2d and QuantMatMul; without gradients."""

from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq.models.block_maps import joined
from vitdfq.quantization.integer.codes import Codes, Plane
from vitdfq.quantization.integer.products import batched_product, value_sums
from vitdfq.quantization.integer.weights import IntegerWeight
from vitdfq.quantization.modules import QuantConv2d, QuantMatMul, QuantWeighted

# The activations of so many pixels stay in a processor's cache: with 32 images of 224 pixels at once a pixel takes twice as long.
VALUES_AT_ONCE = {"cpu": 2**19}


class IntegerLinear(nn.Module):
    """QuantLinear with int8 products. `codes` turns float inputs (..., in) into planes and subtracts the layer's input shift."""

    def __init__(self, layer: QuantWeighted, codes: Codes) -> None:
        super().__init__()
        self.codes, self.weight, self.bias = codes, IntegerWeight(layer), layer.bias
        self.int8_products = codes.num_planes * len(self.weight.values)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        first, *others = (_rows(plane) for plane in self.codes(x))
        product = self.weight(first, self.bias)
        for plane in others:
            product.add_(self.weight(plane, None))
        return product.view(*x.shape[:-1], -1)


class IntegerConv2d(IntegerLinear):
    """QuantConv2d, one group of channels, as the product of its patches. Padding is real zero, which always has a code."""

    def __init__(self, layer: QuantConv2d, codes: Codes) -> None:
        super().__init__(layer, codes)
        assert isinstance(layer.padding, tuple)  # none of these models has a word such as "same"
        self.kernel_size, self.stride = layer.weight.shape[-2:], layer.stride
        self.padding, self.dilation, self.edges = layer.padding, layer.dilation, layer.edges

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.edges) if self.edges else x
        sizes = zip(x.shape[-2:], self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        grid = [(size + 2 * pad - gap * (kernel - 1) - 1) // step + 1 for size, kernel, step, pad, gap in sizes]
        patches = F.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)
        return super().forward(patches.transpose(1, 2)).transpose(1, 2).unflatten(-1, grid)


class IntegerMatMul(nn.Module):
    """QuantMatMul with int8 products. `left_codes` subtracts the left shift; its product with the right operand is added back."""

    left_shift: Tensor | None

    def __init__(self, product: QuantMatMul, left_codes: Codes, right_codes: Codes) -> None:
        super().__init__()
        shift = product.left_shift
        self.register_buffer("left_shift", shift if shift is not None and shift.any() else None)
        self.left_codes, self.right_codes, self.renormalize = left_codes, right_codes, product.renormalize
        self.int8_products = left_codes.num_planes

    @torch.no_grad()
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        planes, (operand,) = self.left_codes(left), self.right_codes(right)
        product = reduce(Tensor.add_, (_real(batched_product(plane, operand), plane.factor) for plane in planes))
        if self.renormalize:
            sums = reduce(Tensor.add_, (_real(value_sums(plane, -1), plane.factor) for plane in planes))
            product.div_(sums.clamp_(min=0.1))
        product.mul_(operand.factor)
        if self.left_shift is not None:
            product.add_(self.left_shift @ _real(operand.values.float().sub_(operand.zero), operand.factor))
        return product


def _rows(plane: Plane) -> Plane:
    """A plane of tokens (..., C) with one row for each token (T, C); zero and factor, where they differ by token, are (T, 1)."""

    def by_row(number: float | Tensor) -> float | Tensor:
        if not isinstance(number, Tensor) or number.ndim == 0:
            return number
        return number.expand(*plane.values.shape[:-1], 1).reshape(-1, 1)

    return Plane(plane.values.flatten(0, -2), by_row(plane.zero), by_row(plane.factor))


def _real(numbers: Tensor, factor: float | Tensor) -> Tensor:
    return numbers.to(torch.float32).mul_(factor)


class IntegerStudent(nn.Module):
    """Runs `model` on parts of a batch. Has `vitdfq`, and the attributes of a timm model that `evaluate` reads."""

    def __init__(self, model: nn.Module, record: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.vitdfq = model, record
        for name in ("num_classes", "pretrained_cfg"):
            setattr(self, name, getattr(model, name))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Any:
        """(B, 3, H, W) -> (B, classes), or whatever else the student gives."""
        if x.device.type not in VALUES_AT_ONCE or len(x) == 0:
            return self.model(x)
        images = max(1, VALUES_AT_ONCE[x.device.type] // x[0].numel())
        return joined([self.model(part) for part in x.split(images)])
