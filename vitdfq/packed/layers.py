"""A quantized layer's tensors, named and packed as compressed-tensors' `pack-quantized` does, and back.

Codes are 0..2^bits - 1 here and signed there: both subtract 2^(bits-1) from code and zero point, so that a dequantized weight,
(code - zero point) · scale, is the same bit for bit. Packed words hold the unsigned codes in both.

    weight_packed      int32 (out, ceil(in · bits / 32)); a convolution's weight is flattened to (out, in · height · width)
    weight_scale       float32 (out, 1), (out, groups) or, per tensor, (1,)
    weight_zero_point  int32 (ceil(out · bits / 32), 1 or groups), packed along `out`; per tensor int8 (1,); symmetric: none
    weight_shape       int64 (2,): out, in
    input_scale        float32 (1,), of a static grid per tensor
    input_zero_point   int8 (1,); symmetric: none
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitdfq.quantization.modules import QuantWeighted, named_weighted_modules
from vitdfq.quantization.packing import pack, unpack
from vitdfq.quantization.quantizers.uniform import Uniform

Tensors = dict[str, Tensor]
WEIGHT = ("weight", "weight_quantizer.scale", "weight_quantizer.zero_point")  # what of a layer's state `weight_tensors` holds
INPUT = ("input_quantizer.scale", "input_quantizer.zero_point")  # and `input_tensors`


def packable(student: nn.Module) -> list[tuple[str, QuantWeighted]]:
    """The layers whose weight is quantized, by name."""
    return [(name, module) for name, module in named_weighted_modules(student) if isinstance(module.weight_quantizer, Uniform)]


def static_inputs(student: nn.Module) -> list[tuple[str, QuantWeighted]]:
    """The layers whose input has one uniform grid, by name."""
    return [(name, module) for name, module in named_weighted_modules(student) if isinstance(module.input_quantizer, Uniform)]


def weight_tensors(module: QuantWeighted) -> Tensors:
    quantizer = module.weight_quantizer
    rows = module.weight.flatten(1)
    tensors = {
        "weight_packed": pack(quantizer.codes(rows), quantizer.bits),
        "weight_scale": quantizer.scale.view(quantizer.scale.shape or (1,)),
        "weight_shape": torch.tensor(rows.shape),
    }
    if quantizer.symmetric:
        return tensors
    if quantizer.granularity == "tensor":
        return tensors | {"weight_zero_point": _signed(quantizer.zero_point, quantizer.bits)}
    return tensors | {"weight_zero_point": pack(quantizer.zero_point.T, quantizer.bits).T}


def fill_weight(module: QuantWeighted, tensors: Tensors, owner: str) -> None:
    """Undo `weight_tensors`: `tensors` holds them, each with `owner`'s name in front."""
    quantizer = module.weight_quantizer
    rows = module.weight.flatten(1)
    require_shape(owner, tensors[f"{owner}.weight_shape"], rows.shape)
    quantizer.scale.copy_(tensors[f"{owner}.weight_scale"].view_as(quantizer.scale))
    if quantizer.symmetric:
        quantizer.zero_point.fill_(2 ** (quantizer.bits - 1))
    elif quantizer.granularity == "tensor":
        quantizer.zero_point.copy_(_unsigned(tensors[f"{owner}.weight_zero_point"], quantizer.bits))
    else:
        quantizer.zero_point.copy_(unpack(tensors[f"{owner}.weight_zero_point"].T, quantizer.bits, len(rows)).T)
    codes = unpack(tensors[f"{owner}.weight_packed"], quantizer.bits, rows.shape[1])
    module.weight.copy_(quantizer.decode(codes).view_as(module.weight))
    module.weight_on_grid = True


def input_tensors(module: QuantWeighted) -> Tensors:
    quantizer = module.input_quantizer
    scale = {"input_scale": quantizer.scale.view(1)}
    return scale if quantizer.symmetric else scale | {"input_zero_point": _signed(quantizer.zero_point, quantizer.bits)}


def fill_input(module: QuantWeighted, tensors: Tensors, owner: str) -> None:
    """Undo `input_tensors`."""
    quantizer = module.input_quantizer
    quantizer.scale.copy_(tensors[f"{owner}.input_scale"][0])
    if quantizer.symmetric:
        quantizer.zero_point.fill_(2 ** (quantizer.bits - 1))
    else:
        quantizer.zero_point.copy_(_unsigned(tensors[f"{owner}.input_zero_point"], quantizer.bits))


def require_shape(owner: str, said: Tensor, shape: Sequence[int]) -> None:
    if said.tolist() != list(shape):
        raise ValueError(f"{owner}.weight_shape says {said.tolist()}, the layer has {list(shape)}")


def _signed(zero_point: Tensor, bits: int) -> Tensor:
    return (zero_point - 2 ** (bits - 1)).to(torch.int8).view(1)


def _unsigned(zero_point: Tensor, bits: int) -> Tensor:
    return zero_point[0].float() + 2 ** (bits - 1)
