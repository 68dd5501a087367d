"""In which type matrix products are computed."""

import torch

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}  # name -> what autocast takes, None: as they are


def fastest_precision(device: torch.device) -> str:
    """Return "bfloat16" where the hardware multiplies it, else "float32": emulated products take ten times as long.

    By what the hardware is, not by a stopwatch: a resumed run must go on as it began.
    """
    if device.type == "cuda":
        multiplies = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        multiplies = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return "bfloat16" if multiplies else "float32"
