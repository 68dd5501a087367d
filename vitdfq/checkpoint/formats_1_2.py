"""Formats 1 and 2: codes that never cross a word's end (`32 // bits` in a word), quantizers under their own names.

Format 1 had no shifts, and neither format had the biases that `quantize` adds to layers without one: a missing tensor is zero.
"""

import torch
from torch import Tensor, nn

from vitdfq.checkpoint.state_dict import Tensors, is_shift, packable, require_shape
from vitdfq.quantization.modules import weighted_modules


def layout(student: nn.Module) -> Tensors:
    """The tensors of such a file, without storage."""
    tensors = {name: value.to("meta") for name, value in student.state_dict().items()}
    for name, _, grid in packable(student):
        weight = tensors.pop(f"{name}.weight")
        words = -(-weight[0].numel() // (32 // grid.bits))
        tensors[f"{name}.weight_packed"] = torch.empty(len(weight), words, dtype=torch.int32, device="meta")
        tensors[f"{name}.weight_shape"] = torch.empty(weight.ndim, dtype=torch.int32, device="meta")
        zero_point = f"{name}.weight_quantizer.zero_point"
        tensors[zero_point] = tensors[zero_point].to(torch.uint8)
    return tensors


@torch.no_grad()
def fill(student: nn.Module, tensors: Tensors) -> None:
    """Put the tensors of such a file into a freshly built student; shifts and added biases may be missing."""
    for name, value in student.state_dict().items():
        if name in tensors:
            value.copy_(tensors[name])
    for name, layer, grid in packable(student):
        require_shape(name, tensors[f"{name}.weight_shape"], layer.weight.shape)
        codes = unpack(tensors[f"{name}.weight_packed"], grid.bits, layer.weight[0].numel())
        layer.weight.copy_(layer.weight_quantizer.decode(codes).view_as(layer.weight))
    for layer in weighted_modules(student):
        layer.weight_on_grid = True


def may_lack(student: nn.Module, model: nn.Module) -> set[str]:
    """The tensors that such a file may lack, for a student of the float `model`: shifts, and biases that `quantize` added."""
    known = model.state_dict()
    state = student.state_dict()
    return {name for name in state if is_shift(name) or (name.endswith(".bias") and name not in known)}


def unpack(words: Tensor, bits: int, columns: int) -> Tensor:
    """(R, ceil(M / (32 // bits))) int32, low bits first, rows padded to whole words -> (R, columns) int32 codes."""
    shifts = bits * torch.arange(32 // bits, device=words.device)
    codes = (words.to(torch.int64)[..., None] >> shifts) & (2**bits - 1)
    return codes.flatten(1)[:, :columns].to(torch.int32)
