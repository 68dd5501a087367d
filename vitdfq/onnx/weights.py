"""What stands in the exported graph for a quantized weight: integers, and what takes them back to real values."""

from torch import Tensor, nn

from vitdfq.common.errors import ExportError
from vitdfq.onnx.activations import byte_for, fits_int8
from vitdfq.onnx.operators import dequantize
from vitdfq.quantization.modules import QuantWeighted
from vitdfq.quantization.quantizers.uniform import Uniform


def exportable_weight(module: QuantWeighted, *, transposed: bool) -> nn.Module:
    """Return a module without inputs that gives the weight as a matrix: (out, in), or (in, out) if `transposed`.

    Its codes are in int8, or in uint8 where products of int8 overflow, see `fits_int8`.

    Raises:
        ExportError: a weight quantizer that is not uniform.
    """
    quantizer, rows = module.weight_quantizer, module.weight.detach().flatten(1)
    if isinstance(quantizer, nn.Identity):
        return FloatWeight(rows.T.contiguous() if transposed else rows)
    if not isinstance(quantizer, Uniform):
        raise ExportError(f"{type(quantizer).__name__} weights have no ONNX form; choices: uniform")
    return IntegerWeight(quantizer, rows, transposed=transposed, signed=fits_int8(module.input_quantizer, quantizer))


class FloatWeight(nn.Module):
    """A weight that stays in float."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self) -> Tensor:
        return self.matrix


class IntegerWeight(nn.Module):
    """Codes in a byte with a scale and a zero point a row, a group of a row, or the whole; `bits` says how many bits are used.

    Signed, codes 0..2^bits - 1 become -2^(bits-1)..2^(bits-1) - 1: up to 4 bits they fit ONNX's int4, in which `storage.py` puts
    them.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: Uniform, rows: Tensor, *, transposed: bool, signed: bool) -> None:
        super().__init__()
        self.bits, self.block_size = quantizer.bits, quantizer.group_size
        middle, dtype = byte_for(quantizer.bits, signed=signed)
        codes = (quantizer.codes(rows) - middle).to(dtype)
        scale, zero_point = quantizer.scale, (quantizer.zero_point - middle).to(dtype)
        self.axis: int | None = None
        if quantizer.granularity == "group":  # along the row: (out, groups)
            self.axis = 0 if transposed else 1
            scale, zero_point = (x.T.contiguous() if transposed else x for x in (scale, zero_point))
        elif quantizer.granularity == "channel":
            self.axis = 1 if transposed else 0
            scale, zero_point = scale[:, 0], zero_point[:, 0]
        self.register_buffer("codes", codes.T.contiguous() if transposed else codes)
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("zero_point", zero_point.clone())

    def forward(self) -> Tensor:
        return dequantize(self.codes, self.scale, self.zero_point, self.axis, self.block_size)
