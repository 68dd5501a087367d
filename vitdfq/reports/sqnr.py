"""The error of a student by unit: the ratio of signal to quantization noise (SQNR)."""

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of
from vitdfq.models import units

BATCH_SIZE = 32  # images in one forward pass of a report


@torch.inference_mode()
def unit_sqnr(student: nn.Module, prepared: nn.Module, images: Tensor) -> dict[str, float]:
    """The SQNR in dB after each unit, by the unit's name. A large drop from one unit to the next names the cause of an error.

    Each batch passes through the whole chain before the next one, so that memory does not grow with the number of images.

    Args:
        student: a calibrated student.
        prepared: the float model that the student was made from; its outputs are the signal.
        images: (N, 3, H, W), the input of both models.
    """
    device = device_of(student)
    pairs = list(zip(units(student), units(prepared), strict=True))
    signal, noise = torch.zeros(2, len(pairs), dtype=torch.float64)
    for batch in images.split(BATCH_SIZE):
        quantized = real = batch.to(device)
        for index, (unit, float_unit) in enumerate(pairs):
            quantized, real = unit.forward(quantized), float_unit.forward(real)
            signal[index] += real.square().sum().item()
            noise[index] += (quantized - real).square().sum().item()
    ratios = 10 * torch.log10(signal / noise.clamp(min=torch.finfo(torch.float32).tiny))
    return {unit.name: round(ratio, 2) for (unit, _), ratio in zip(pairs, ratios.tolist(), strict=True)}
