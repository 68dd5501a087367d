"""The data type in which matrix products are computed."""

import torch

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}  # name -> dtype for autocast; None: no autocast


def fastest_precision(device: torch.device) -> str:
    """Return "bfloat16" where the hardware multiplies it, else "float32": emulated products take ten times as long.

    The choice depends on the kind of hardware, not on a timing, so that a resumed run continues in the precision it began with.
    """
    if device.type == "cuda":
        multiplies = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        multiplies = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return "bfloat16" if multiplies else "float32"
