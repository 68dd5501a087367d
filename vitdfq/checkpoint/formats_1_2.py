"""Formats 1 and 2: codes that never cross a word's end (`32 // bits` a word), quantizers under their own names.

Format 1 knew no shifts, and neither format the biases that `quantize` gives to layers without: zero is what that means.
"""

import torch
from torch import Tensor, nn

from vitdfq.checkpoint.state_dict import is_shift, packable, require_shape

Tensors = dict[str, Tensor]


def layout(student: nn.Module) -> Tensors:
    """The tensors of such a file, without storage."""
    tensors = {name: value.to("meta") for name, value in student.state_dict().items()}
    for owner, module in packable(student):
        weight, bits = tensors.pop(f"{owner}.weight"), module.weight_quantizer.bits
        words = -(-weight[0].numel() // (32 // bits))
        tensors[f"{owner}.weight_packed"] = torch.empty(len(weight), words, dtype=torch.int32, device="meta")
        tensors[f"{owner}.weight_shape"] = torch.empty(weight.ndim, dtype=torch.int32, device="meta")
        zero_point = f"{owner}.weight_quantizer.zero_point"
        tensors[zero_point] = tensors[zero_point].to(torch.uint8)
    return tensors


@torch.no_grad()
def fill(student: nn.Module, tensors: Tensors) -> None:
    """Put the tensors of such a file into a freshly built student; shifts and added biases may lack."""
    for name, value in student.state_dict().items():
        if name in tensors:
            value.copy_(tensors[name])
    for owner, module in packable(student):
        require_shape(owner, tensors[f"{owner}.weight_shape"], module.weight.shape)
        codes = unpack(tensors[f"{owner}.weight_packed"], module.weight_quantizer.bits, module.weight[0].numel())
        module.weight.copy_(module.weight_quantizer.decode(codes).view_as(module.weight))
        module.weight_on_grid = True


def may_lack(student: nn.Module, model: nn.Module) -> set[str]:
    """What such a file may lack, for a student of the float `model`: shifts, biases that `quantize` added."""
    known = model.state_dict()
    state = student.state_dict()
    return {name for name in state if is_shift(name) or (name.endswith(".bias") and name not in known)}


def unpack(words: Tensor, bits: int, columns: int) -> Tensor:
    """(R, ceil(M / (32 // bits))) int32, low bits first, rows padded to whole words -> (R, columns) int32 codes."""
    shifts = bits * torch.arange(32 // bits, device=words.device)
    codes = (words.to(torch.int64)[..., None] >> shifts) & (2**bits - 1)
    return codes.flatten(1)[:, :columns].to(torch.int32)
