"""The size of a student's weights file, without writing it."""

import json

from torch import nn

from vitdfq.checkpoint.state_dict import is_shift, layout, without_zero_shifts
from vitdfq.common.safetensors_io import dtype_name

LENGTH = 8  # bytes in front of a safetensors header, which also starts tensors at a multiple of it


def tensor_bytes(student: nn.Module) -> dict[str, int]:
    """Return the bytes of each tensor that `save` writes for a student; shifts that are zero, which it leaves out, are none.

    The key "" holds those of the file's header.
    """
    kept = without_zero_shifts(dict(student.state_dict()))
    tensors = {name: value for name, value in layout(student).items() if name in kept or not is_shift(name)}
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in tensors.items():
        start, end = end, end + value.nbytes
        header[name] = {"dtype": dtype_name(value.dtype), "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"))
    return {"": 2 * LENGTH + len(text)} | {name: value.nbytes for name, value in tensors.items()}
