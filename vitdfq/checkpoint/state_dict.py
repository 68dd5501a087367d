"""A student's state as the tensors of format 3, and back.

Weights and inputs of layers are packed as `py` says. Of the two products of an attention all single numbers (scales, zero
points, settings of a softmax grid) lie in one tensor, `settings`, q @ k before p @ v, each in alphabetical order: in a
safetensors file every tensor costs a hundred bytes of header. Shifts that are zero are left out. All else keeps its name.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitdfq.checkpoint.bit_packing import pack, unpack
from vitdfq.models.build import without_storage
from vitdfq.quantization.modules import QuantMatMul, QuantWeighted, named_weighted_modules
from vitdfq.quantization.quantizers.uniform import Uniform

Tensors = dict[str, Tensor]


@torch.no_grad()
def to_tensors(student: nn.Module) -> Tensors:
    """Everything that a student holds, by its name in a file."""
    tensors = dict(student.state_dict())
    for owners, own_names, packed in (
        (packable(student), WEIGHT, weight_tensors),
        (static_inputs(student), INPUT, input_tensors),
    ):
        for owner, module in owners:
            for name in own_names:
                del tensors[f"{owner}.{name}"]
            tensors |= {f"{owner}.{name}": value for name, value in packed(module).items()}
    for owner, names in _settings(student).items():
        tensors[f"{owner}.settings"] = torch.stack([tensors.pop(name) for name in names])
    return tensors


@torch.no_grad()
def fill(student: nn.Module, tensors: Tensors) -> None:
    """Undo `to_tensors` into a freshly built student; shifts may lack."""
    for owner, module in packable(student):
        fill_weight(module, tensors, owner)
    for owner, module in static_inputs(student):
        fill_input(module, tensors, owner)
    state = student.state_dict()
    for owner, names in _settings(student).items():
        for name, value in zip(names, tensors[f"{owner}.settings"], strict=True):
            state[name].copy_(value)
    for name, value in state.items():
        if name in tensors:
            value.copy_(tensors[name])


def layout(student: nn.Module) -> Tensors:
    """What `to_tensors` would give, as tensors without storage."""
    return to_tensors(without_storage(student))


def without_zero_shifts(tensors: Tensors) -> Tensors:
    """The tensors that are written; most shifts are zero."""
    return {name: value for name, value in tensors.items() if not is_shift(name) or value.any()}


def is_shift(name: str) -> bool:
    return name.endswith(("input_shift", "left_shift"))


def _settings(student: nn.Module) -> dict[str, list[str]]:
    """Attention -> the names of the single numbers of its two products, where there are any."""
    products = [name for name, part in student.named_modules() if isinstance(part, QuantMatMul)]
    numbers = sorted(name for name, value in student.state_dict().items() if value.ndim == 0)
    found: dict[str, list[str]] = {}
    for product in products:
        attention = product.rpartition(".")[0]
        found.setdefault(attention, []).extend(name for name in numbers if name.startswith(f"{product}."))
    return {attention: names for attention, names in found.items() if names}


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
