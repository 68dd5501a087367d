"""ONNX's own QuantizeLinear and DequantizeLinear, as torch.onnx writes them into a graph."""

from typing import Any

import torch
from torch import Tensor

OPSET = 21  # the first with 4-bit types and with a scale a block of a row


def dequantize(
    codes: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None = None, block_size: int | None = None
) -> Tensor:
    """Real values of `codes`, any shape, which is kept.

    Scale and zero point are 0-d, or (n,) along `axis`; with `block_size` of the shape of `codes`, that many times fewer along it.
    """
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    if block_size is not None:
        attributes["block_size"] = block_size
    return _operator("DequantizeLinear", codes, scale, zero_point, attributes, torch.float32)


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None = None) -> Tensor:
    """Codes of `x` in the zero point's type, clipped to what that type holds."""
    return _operator("QuantizeLinear", x, scale, zero_point, {} if axis is None else {"axis": axis}, zero_point.dtype)


def _operator(name: str, x: Tensor, scale: Tensor, zero_point: Tensor, attributes: dict[str, Any], dtype: torch.dtype) -> Tensor:
    return torch.onnx.ops.symbolic(name, (x, scale, zero_point), attributes, dtype=dtype, shape=x.shape, version=OPSET)
