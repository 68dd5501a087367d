"""The exported form of a quantized weight: integers, and the operator that turns them back into real values."""

import torch
from torch import Tensor, nn

from vitdfq.onnx.layout import Layout, byte_for
from vitdfq.onnx.operators import dequantize
from vitdfq.quantization.modules import QuantWeighted, quantized_weight
from vitdfq.quantization.quantizers.forms import Affine


@torch.no_grad()
def exportable_weight(module: QuantWeighted, layout: Layout, *, transposed: bool) -> nn.Module:
    """Return a module without inputs whose output is the weight as a matrix: (out, in), or (in, out) if `transposed`.

    Codes of an affine grid are int8, or uint8 where the layout has it so. A weight on another grid is stored as the float values
    of its levels.
    """
    quantizer = module.weight_quantizer
    if quantizer.affine is None:
        rows = quantized_weight(module).detach().flatten(1)
        return FloatWeight(rows.T.contiguous() if transposed else rows)
    codes = quantizer.codes(module.weight.detach().flatten(1))
    return IntegerWeight(
        quantizer.affine,
        codes,
        transposed=transposed,
        signed=layout.right_signed(module.input_quantizer, quantizer),
        alone=module.input_quantizer.bits is None,
    )


class FloatWeight(nn.Module):
    """A weight in float."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self) -> Tensor:
        return self.matrix


class IntegerWeight(nn.Module):
    """Codes in bytes with a scale and a zero point for each row, each group of a row, or the whole; `bits` are used.

    Signed, codes 0..2^bits - 1 become -2^(bits-1)..2^(bits-1) - 1: up to 4 bits these fit ONNX's int4, in which `storage.py`
    stores them. `alone`: the input of the product stays in float.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor

    @property
    def device(self) -> torch.device:
        """Where the weight lies, as timm's code asks of the weight of a layer."""
        return self.scale.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weight that the codes stand for."""
        return self.scale.dtype

    def __init__(self, grid: Affine, codes: Tensor, *, transposed: bool, signed: bool, alone: bool) -> None:
        super().__init__()
        self.bits, self.block_size, self.alone = grid.bits, grid.group_size, alone
        middle, dtype = byte_for(grid.bits, signed=signed)
        codes = (codes - middle).to(dtype)
        scale, zero_point = grid.scale, (grid.zero_point - middle).to(dtype)
        self.axis: int | None = None
        if grid.granularity == "group":  # along the row: (out, groups)
            self.axis = 0 if transposed else 1
            scale, zero_point = (x.T.contiguous() if transposed else x for x in (scale, zero_point))
        elif grid.granularity == "channel":
            self.axis = 1 if transposed else 0
            scale, zero_point = scale[:, 0], zero_point[:, 0]
        self.register_buffer("codes", codes.T.contiguous() if transposed else codes)
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("zero_point", zero_point.clone())

    def forward(self) -> Tensor:
        return dequantize(self.codes, self.scale, self.zero_point, self.axis, self.block_size)
