"""A student's state as the tensors of format 3, and back.

Weights and inputs of layers are packed as `layers.py` says. Of the two products of an attention all single numbers (scales, zero
points, settings of a softmax grid) lie in one tensor, `settings`, q @ k before p @ v, each in alphabetical order: in a
safetensors file every tensor costs a hundred bytes of header. Shifts that are zero are left out. All else keeps its name.
"""

import torch
from torch import Tensor, nn

from vitdfq.models.building import without_storage
from vitdfq.packed import layers
from vitdfq.quantization.modules import QuantMatMul

Tensors = dict[str, Tensor]


@torch.no_grad()
def to_tensors(student: nn.Module) -> Tensors:
    """Everything that a student holds, by its name in a file."""
    tensors = dict(student.state_dict())
    for owners, own_names, packed in (
        (layers.packable(student), layers.WEIGHT, layers.weight_tensors),
        (layers.static_inputs(student), layers.INPUT, layers.input_tensors),
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
    for owner, module in layers.packable(student):
        layers.fill_weight(module, tensors, owner)
    for owner, module in layers.static_inputs(student):
        layers.fill_input(module, tensors, owner)
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
