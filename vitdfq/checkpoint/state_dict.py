"""A student's state as the tensors of formats 3 to 5, and back.

Weights on an affine grid are packed in the grammar of compressed-tensors, and so are the static grids of layers' inputs: their
codes are signed, so 2^(bits - 1) is subtracted from ours (0 to 2^bits - 1). Weights on another grid are stored as the float
values of their levels. All scales, zero points and settings of softmax grids of the two products of an attention lie in one
tensor, `settings`, q @ k before p @ v, each in alphabetical order: in a safetensors file every tensor costs a hundred bytes of
header. In format 3 these were single numbers only, scales by head were tensors of their own. Before format 5 dynamic ranges
had no clips. Shifts that are zero are left out. All other tensors keep their names.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitdfq.checkpoint.bit_packing import pack, unpack
from vitdfq.models.storage import without_storage
from vitdfq.quantization.modules import QuantMatMul, QuantWeighted, named_weighted_modules, quantized_weight, weighted_modules
from vitdfq.quantization.quantizers.forms import Affine

Tensors = dict[str, Tensor]
WEIGHT = ("weight", "weight_quantizer.scale", "weight_quantizer.zero_point")  # the part of a layer's state in `weight_tensors`
INPUT = ("input_quantizer.scale", "input_quantizer.zero_point")  # and in `input_tensors`


@torch.no_grad()
def to_tensors(student: nn.Module, *, heads_in_settings: bool = True) -> Tensors:
    """The whole state of a student, by name in the file. Format 3 has no heads in settings."""
    tensors = dict(student.state_dict())
    for name, layer in named_weighted_modules(student):
        if layer.weight_quantizer.affine is None:
            tensors[f"{name}.weight"] = quantized_weight(layer)
    for name, layer, grid in packable(student):
        _replace(tensors, name, WEIGHT, weight_tensors(layer, grid))
    for name, _, grid in static_inputs(student):
        _replace(tensors, name, INPUT, input_tensors(grid))
    for attention, names in _settings(student, heads_in_settings).items():
        tensors[f"{attention}.settings"] = torch.cat([tensors.pop(name).view(-1) for name in names])
    return tensors


@torch.no_grad()
def fill(student: nn.Module, tensors: Tensors, *, heads_in_settings: bool = True) -> None:
    """Undo `to_tensors` in a freshly built student; shifts may be missing."""
    for name, layer, grid in packable(student):
        fill_weight(layer, grid, tensors, name)
    for name, _, grid in static_inputs(student):
        fill_input(grid, tensors, name)
    state = student.state_dict()
    for attention, names in _settings(student, heads_in_settings).items():
        values = tensors[f"{attention}.settings"].split([state[name].numel() for name in names])
        for name, value in zip(names, values, strict=True):
            state[name].copy_(value.view_as(state[name]))
    for name, value in state.items():
        if name in tensors:
            value.copy_(tensors[name])
    for layer in weighted_modules(student):
        layer.weight_on_grid = True


def layout(student: nn.Module, *, heads_in_settings: bool = True) -> Tensors:
    """The tensors that `to_tensors` would return, without storage."""
    copy = without_storage(student)
    for layer in weighted_modules(copy):
        layer.weight_on_grid = True  # no quantizer needs to run without storage
    return to_tensors(copy, heads_in_settings=heads_in_settings)


def without_zero_shifts(tensors: Tensors) -> Tensors:
    """The tensors that are written; most shifts are zero."""
    return {name: value for name, value in tensors.items() if not is_shift(name) or value.any()}


def is_shift(name: str) -> bool:
    return name.endswith(("input_shift", "left_shift"))


def is_clip(name: str) -> bool:
    """Whether a tensor is the share that a layer's dynamic ranges cover."""
    return name.endswith("input_quantizer.clip")


@torch.no_grad()
def cover_whole_ranges(student: nn.Module) -> None:
    """Set the clips of a freshly built student to what they were before there were any."""
    for name, value in student.state_dict().items():
        if is_clip(name):
            value.fill_(1.0)


def packable(student: nn.Module) -> list[tuple[str, QuantWeighted, Affine]]:
    """The layers whose weight is on an affine grid, by name, with it."""
    layers = [(name, layer, layer.weight_quantizer.affine) for name, layer in named_weighted_modules(student)]
    return [(name, layer, grid) for name, layer, grid in layers if grid is not None]


def static_inputs(student: nn.Module) -> list[tuple[str, QuantWeighted, Affine]]:
    """The layers whose input is on an affine grid, one or one for each first token and the patches, by name, with it."""
    layers = [(name, layer, layer.input_quantizer.affine) for name, layer in named_weighted_modules(student)]
    return [(name, layer, grid) for name, layer, grid in layers if grid is not None]


def weight_tensors(layer: QuantWeighted, grid: Affine) -> Tensors:
    rows = layer.weight.flatten(1)
    tensors = {
        "weight_packed": pack(layer.weight_quantizer.codes(rows), grid.bits),
        "weight_scale": grid.scale.view(grid.scale.shape or (1,)),
        "weight_shape": torch.tensor(rows.shape),
    }
    if grid.symmetric:
        return tensors
    if grid.granularity == "tensor":
        return tensors | {"weight_zero_point": _signed(grid.zero_point, grid.bits)}
    return tensors | {"weight_zero_point": pack(grid.zero_point.T, grid.bits).T}


def fill_weight(layer: QuantWeighted, grid: Affine, tensors: Tensors, name: str) -> None:
    """Undo `weight_tensors`, which `tensors` holds under names that start with the layer's."""
    rows = layer.weight.flatten(1)
    require_shape(name, tensors[f"{name}.weight_shape"], rows.shape)
    grid.scale.copy_(tensors[f"{name}.weight_scale"].view_as(grid.scale))
    if grid.symmetric:
        grid.zero_point.fill_(2 ** (grid.bits - 1))
    elif grid.granularity == "tensor":
        grid.zero_point.copy_(_unsigned(tensors[f"{name}.weight_zero_point"], grid.bits).view_as(grid.zero_point))
    else:
        grid.zero_point.copy_(unpack(tensors[f"{name}.weight_zero_point"].T, grid.bits, len(rows)).T)
    codes = unpack(tensors[f"{name}.weight_packed"], grid.bits, rows.shape[1])
    layer.weight.copy_(layer.weight_quantizer.decode(codes).view_as(layer.weight))


def input_tensors(grid: Affine) -> Tensors:
    scale = {"input_scale": grid.scale.view(-1)}
    return scale if grid.symmetric else scale | {"input_zero_point": _signed(grid.zero_point, grid.bits)}


def fill_input(grid: Affine, tensors: Tensors, name: str) -> None:
    """Undo `input_tensors`."""
    grid.scale.copy_(tensors[f"{name}.input_scale"].view_as(grid.scale))
    if grid.symmetric:
        grid.zero_point.fill_(2 ** (grid.bits - 1))
    else:
        grid.zero_point.copy_(_unsigned(tensors[f"{name}.input_zero_point"], grid.bits).view_as(grid.zero_point))


def require_shape(name: str, stored: Tensor, shape: Sequence[int]) -> None:
    """Raise ValueError unless a stored `weight_shape` is that of the layer."""
    if stored.tolist() != list(shape):
        raise ValueError(f"{name}.weight_shape says {stored.tolist()}, the layer has {list(shape)}")


def _replace(tensors: Tensors, layer: str, old: Sequence[str], new: Tensors) -> None:
    for name in old:
        del tensors[f"{layer}.{name}"]
    tensors |= {f"{layer}.{name}": value for name, value in new.items()}


def _settings(student: nn.Module, with_heads: bool) -> dict[str, list[str]]:
    """Attention -> the names of the scales and settings of its two products, where there are any; or of single numbers only."""
    products = [name for name, part in student.named_modules() if isinstance(part, QuantMatMul)]
    state = {name: value for name, value in student.state_dict().items() if not is_shift(name)}
    numbers = sorted(name for name, value in state.items() if with_heads or value.ndim == 0)
    settings: dict[str, list[str]] = {}
    for product in products:
        attention = product.rpartition(".")[0]
        settings.setdefault(attention, []).extend(name for name in numbers if name.startswith(f"{product}."))
    return {attention: names for attention, names in settings.items() if names}


def _signed(zero_point: Tensor, bits: int) -> Tensor:
    return (zero_point - 2 ** (bits - 1)).to(torch.int8).view(-1)


def _unsigned(zero_point: Tensor, bits: int) -> Tensor:
    return zero_point.float() + 2 ** (bits - 1)
