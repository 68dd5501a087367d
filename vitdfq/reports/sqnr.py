"""Signal to quantization noise after each unit of a student."""

import torch
from torch import Tensor, nn

from vitdfq.models import units

AT_ONCE = 32  # images in one forward pass


@torch.inference_mode()
def unit_sqnr(student: nn.Module, prepared: nn.Module, images: Tensor) -> dict[str, float]:
    """Signal to quantization noise (dB) after each unit, both models fed the same images (N, 3, H, W): which unit hurts.

    Batches go through the whole chain one by one, so that memory holds one of them however many images there are.
    """
    device = next(student.parameters()).device
    pairs = list(zip(units(student), units(prepared), strict=True))
    signal, noise = torch.zeros(2, len(pairs), dtype=torch.float64)
    for part in images.split(AT_ONCE):
        quantized = real = part.to(device)
        for place, (unit, float_unit) in enumerate(pairs):
            quantized, real = unit.forward(quantized), float_unit.forward(real)
            signal[place] += real.square().sum().item()
            noise[place] += (quantized - real).square().sum().item()
    ratios = 10 * torch.log10(signal / noise.clamp(min=torch.finfo(torch.float32).tiny))
    return {unit.name: round(ratio, 2) for (unit, _), ratio in zip(pairs, ratios.tolist(), strict=True)}
