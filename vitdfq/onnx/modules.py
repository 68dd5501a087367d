"""The exported form of quantized sites."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq.common.errors import ExportError
from vitdfq.models.sites import put
from vitdfq.onnx.activations import exportable, factored, scaled
from vitdfq.onnx.layout import Layout
from vitdfq.onnx.weights import exportable_weight
from vitdfq.quantization.modules import QuantConv2d, QuantLinear, QuantMatMul, QuantSite, named_sites

DEFAULT = Layout()


def exportable_copy(model: nn.Module, layout: Layout = DEFAULT) -> nn.Module:
    """Return a copy of a model, on the CPU, whose sites consist of operators that ONNX has; a float model has no sites.

    Raises:
        ExportError: a quantizer without ONNX form, or one that the layout's runtime refuses, with its site.
    """
    copy: Any = deepcopy(model).cpu().eval().requires_grad_(False)
    for name, module in named_sites(copy).items():
        try:
            layout.require(module)
            put(copy, name, _exportable(module, layout))
        except ExportError as error:
            raise ExportError(f"{name}: {error}") from error
    return copy


def kind_of(name: str, site: QuantSite) -> str:
    """Return the kind of a site: "convolution", "linear", "qk" or "av"."""
    match site:
        case QuantConv2d():
            return "convolution"
        case QuantLinear():
            return "linear"
        case _:
            return name.rpartition(".")[2]


def _exportable(site: QuantSite, layout: Layout) -> nn.Module:
    match site:
        case QuantMatMul():
            return Product(site, layout)
        case QuantLinear():
            return Linear(site, layout)
        case QuantConv2d():
            cuts_patches = (
                site.stride == site.weight.shape[2:] and site.groups == 1 and set(site.padding) == {0} and not site.edges
            )
            kind = PatchEmbedding if cuts_patches and set(site.dilation) == {1} else Convolution
            return kind(site, layout)
        case _:
            raise ExportError(f"{type(site).__name__} has no ONNX form")


class Linear(nn.Module):
    """(..., in) -> (..., out) as a product with the transposed weight, which runtimes recognize."""

    input_shift: Tensor | None

    def __init__(self, module: QuantLinear, layout: Layout = DEFAULT) -> None:
        super().__init__()
        self.register_buffer("input_shift", module.input_shift if module.input_shift.any() else None)
        # onnxruntime has no integer kernel for weights in groups: beside an input in float they stay packed.
        grid = module.weight_quantizer.affine
        factors = grid is not None and grid.group_size is None
        inputs = module.input_quantizer
        self.input = exportable(inputs, signed=layout.left_signed(inputs), factors=factors)
        self.weight = exportable_weight(module, layout, transposed=True)
        self.bias = module.bias
        # onnxruntime turns a product of two matrices into a Gemm, for which it has no integer kernel here. OpenVINO 2026.4 gets
        # the shape of the longer way round wrong.
        self.avoids_gemm = layout.runtime == "onnxruntime"

    def forward(self, x: Tensor) -> Tensor:
        x, factor = factored(self.input, x if self.input_shift is None else x - self.input_shift)
        if x.ndim == 2 and self.avoids_gemm:
            return scaled((x[:, None] @ self.weight())[:, 0], factor) + self.bias
        return scaled(x @ self.weight(), factor) + self.bias


class PatchEmbedding(nn.Module):
    """A convolution whose patches do not overlap, as a product, for which runtimes have integer kernels.

    (B, C, H, W) -> (B, out, h, w).
    """

    def __init__(self, module: QuantConv2d, layout: Layout) -> None:
        super().__init__()
        self.patch = (module.weight.shape[2], module.weight.shape[3])
        inputs = module.input_quantizer
        self.input = exportable(inputs, signed=layout.left_signed(inputs))
        self.weight = exportable_weight(module, layout, transposed=True)
        self.bias = module.bias

    def forward(self, x: Tensor) -> Tensor:
        height, width = (side // patch for side, patch in zip(x.shape[2:], self.patch, strict=True))
        x = x[..., : height * self.patch[0], : width * self.patch[1]]
        x = x.unflatten(3, (width, self.patch[1])).unflatten(2, (height, self.patch[0]))  # (B, C, h, ph, w, pw)
        patches = x.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (B, h, w, C * ph * pw)
        return (self.input(patches) @ self.weight() + self.bias).permute(0, 3, 1, 2)


class Convolution(nn.Module):
    """Any other convolution, (B, in, H, W) -> (B, out, H', W')."""

    def __init__(self, module: QuantConv2d, layout: Layout) -> None:
        super().__init__()
        self.shape = tuple(module.weight.shape)
        self.edges = module.edges
        self.options: Any = (module.stride, module.padding, module.dilation, module.groups)
        inputs = module.input_quantizer
        self.input = exportable(inputs, signed=layout.left_signed(inputs))
        self.weight = exportable_weight(module, layout, transposed=False)
        self.bias = module.bias

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(x)
        x = F.pad(x, self.edges) if self.edges else x
        return F.conv2d(x, self.weight().view(self.shape), self.bias, *self.options)


class Product(nn.Module):
    """The product of two quantized activations, see QuantMatMul."""

    def __init__(self, module: QuantMatMul, layout: Layout = DEFAULT) -> None:
        super().__init__()
        left, right = module.left_quantizer, module.right_quantizer
        self.left = exportable(left, signed=layout.left_signed(left))
        self.right = exportable(right, signed=layout.right_signed(left, right))
        self.renormalize = module.renormalize
        shift = module.left_shift
        self.shift = None if shift is None or not shift.any() else ShiftProduct(shift)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        right, right_factor = factored(self.right, right)
        left, left_factor = factored(self.left, left if self.shift is None else left - self.shift.left_shift)
        product = scaled(left @ right, right_factor if left_factor is None else scaled(left_factor, right_factor))
        if self.renormalize:
            product = product / scaled(left.sum(-1, keepdim=True), left_factor).clamp(min=0.1)
        return product if self.shift is None else product + scaled(self.shift(right), right_factor)


class ShiftProduct(nn.Module):
    """The product of the left operand's shift: a module of its own, so that the two products have different names."""

    left_shift: Tensor

    def __init__(self, left_shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("left_shift", left_shift)

    def forward(self, right: Tensor) -> Tensor:
        return torch.matmul(self.left_shift, right)
