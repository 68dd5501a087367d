"""How a file states 8-bit integers, by the runtime and the processor that are to multiply them."""

from dataclasses import dataclass
from typing import Any

import torch

from vitdfq.common.errors import ExportError
from vitdfq.common.lookup import lookup
from vitdfq.quantization.modules import QuantSite
from vitdfq.quantization.quantizers.base import Quantizer
from vitdfq.quantization.quantizers.forms import Affine, TokenAffine

RUNTIMES, CPUS = ("onnxruntime", "openvino", "tensorrt"), ("vnni", "avx2")


@dataclass(frozen=True)
class Layout:
    """The types of codes in a file. All layouts of a student compute the same function.

    "onnxruntime" takes activations as uint8. "openvino" multiplies two activations as integers only where zero is code 0 of uint8
    (softmax) or of int8 (a symmetric grid). "tensorrt" has int8 only, all zero points 0 and a scale for each tensor, or for each
    output channel of a weight.

    Attributes:
        runtime: one of `RUNTIMES`.
        cpu: "vnni": 8-bit codes on the right of a product are int8, which runtimes multiply fastest. "avx2": uint8 where products
            of int8 overflow without VNNI, see `fits_int8`.

    Raises:
        ValueError: an unknown name.
        ExportError: "avx2" for TensorRT, which has int8 only.
    """

    runtime: str = "onnxruntime"
    cpu: str = "vnni"

    def __post_init__(self) -> None:
        lookup(self.runtime, dict.fromkeys(RUNTIMES), "runtime")
        lookup(self.cpu, dict.fromkeys(CPUS), "processor")
        if self.runtime == "tensorrt" and self.cpu == "avx2":
            raise ExportError("cpu 'avx2' does not go with runtime 'tensorrt': it reads int8 only, and runs on no CPU")

    def left_signed(self, left: Quantizer) -> bool:
        """Whether codes of an input, or of the left operand of a product, are int8."""
        return self.runtime == "tensorrt" or (self.runtime == "openvino" and self.cpu == "vnni" and has_middle_zero(left))

    def right_signed(self, left: Quantizer, right: Quantizer) -> bool:
        """Whether codes of a weight, or of the right operand of a product with `left`, are int8."""
        return self.cpu == "vnni" or fits_int8(left, right)

    def require(self, site: QuantSite) -> None:
        """Raise ExportError for a grid of a site that the runtime's parser refuses."""
        if self.runtime != "tensorrt":
            return
        for name, quantizer in site.quantizers.items():
            if quantizer.bits is not None and not _suits_tensorrt(quantizer, is_weight=name == "weight_quantizer"):
                raise ExportError(
                    f"{name} is {type(quantizer).__name__}({quantizer.extra_repr()}), and TensorRT takes symmetric grids, of "
                    "activations per tensor, of weights per tensor or channel: quantize with policy 'tensorrt'"
                )


def _suits_tensorrt(quantizer: Quantizer, *, is_weight: bool) -> bool:
    granularities = ("tensor", "channel") if is_weight else ("tensor",)
    grid: Any = quantizer.affine
    return grid is not None and grid.granularity in granularities and has_middle_zero(quantizer)


def has_middle_zero(quantizer: Quantizer) -> bool:
    """Whether zero is the middle code everywhere: code 0 once codes are stored as int8."""
    grid: Any = quantizer.affine
    return grid is not None and bool((grid.zero_point == 2 ** (grid.bits - 1)).all())


def fits_int8(left: Quantizer, right: Quantizer) -> bool:
    """Whether codes of `right` may be int8 on the right of a product with uint8 codes of `left` on every processor.

    On x86 without VNNI two such products are added in 16 bits, which saturate: twice 255 by 128 is too much, one bit less on
    either side is not. uint8 on both sides is exact on every processor.
    """
    return stored_bits(left) + stored_bits(right) < 16


def stored_bits(quantizer: Quantizer) -> int:
    """Bits of the integers that a file stores for values of a quantizer; 0: values stay in float; 9: no byte holds them.

    Scales of tokens and heads come with zero points of their own. Codes less these reach from 1 - 2^bits to 2^bits - 1: one bit
    more.
    """
    match quantizer.onnx_form():
        case Affine(granularity="head", symmetric=False, bits=bits) | TokenAffine(symmetric=False, bits=bits):
            return bits + 1
        case _:
            return quantizer.bits or 0


def byte_for(bits: int, *, signed: bool) -> tuple[int, torch.dtype]:
    """Return what is subtracted from codes 0..2^bits - 1 before they are stored, and the type that stores them."""
    return (2 ** (bits - 1), torch.int8) if signed else (0, torch.uint8)
