"""ONNX's own QuantizeLinear and DequantizeLinear, as torch.onnx writes them into a graph."""

from typing import Any

import torch
from torch import Tensor

OPSET = 21  # the first with 4-bit types and with a scale for each block of a row


def dequantize(
    codes: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None = None, block_size: int | None = None
) -> Tensor:
    """Real values of `codes`, same shape.

    Scale and zero point are 0-d, or (n,) along `axis`; with `block_size` of the shape of `codes`, that many times fewer along it.
    """
    attributes = {"axis": axis, "block_size": block_size}
    return _operator("DequantizeLinear", (codes, scale, zero_point), attributes, torch.float32)


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Codes of `x` in the zero point's type, clipped to its range; scale and zero point are 0-d."""
    return _operator("QuantizeLinear", (x, scale, zero_point), {}, zero_point.dtype)


def clip(x: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """`x` between two 0-d bounds. As an operator: the exporter confuses the bounds of two `torch.clip` calls on one tensor."""
    return _operator("Clip", (x, lowest, highest), {}, x.dtype)


def _operator(name: str, inputs: tuple[Tensor, ...], attributes: dict[str, Any], dtype: torch.dtype) -> Tensor:
    given = {key: value for key, value in attributes.items() if value is not None}
    return torch.onnx.ops.symbolic(name, inputs, given, dtype=dtype, shape=inputs[0].shape, version=OPSET)
