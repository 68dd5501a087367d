"""The error of a student by unit: the ratio of signal to quantization noise (SQNR)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of
from vitdfq.models import units

BATCH_SIZE = 32  # images in one forward pass of a report


@dataclass(frozen=True)
class UnitSqnr:
    """The SQNR of one unit's output, in dB.

    Attributes:
        own: with the teacher's activations as its input, so that it is the error of this unit alone.
        so_far: with the student's activations as its input: the errors of all units up to this one.
    """

    own: float
    so_far: float


@torch.inference_mode()
def unit_sqnr(student: nn.Module, prepared: nn.Module, images: Tensor) -> dict[str, UnitSqnr]:
    """The errors of each unit, by the unit's name. The unit with the smallest `own` is the one that hurts most.

    Each batch passes through the whole chain before the next one, so that memory does not grow with the number of images.

    Args:
        student: a calibrated student.
        prepared: the float model that the student was made from; its outputs are the signal.
        images: (N, 3, H, W), the input of both models. Images that the student was calibrated on show too small an error.
    """
    device = device_of(student)
    pairs = list(zip(units(student), units(prepared), strict=True))
    signal, own_noise, noise = torch.zeros(3, len(pairs), dtype=torch.float64)
    for batch in images.split(BATCH_SIZE):
        quantized = real = batch.to(device)
        for index, (unit, float_unit) in enumerate(pairs):
            alone, quantized, real = unit.forward(real), unit.forward(quantized), float_unit.forward(real)
            signal[index] += real.square().sum().item()
            own_noise[index] += (alone - real).square().sum().item()
            noise[index] += (quantized - real).square().sum().item()
    ratios = [_decibels(signal, errors).tolist() for errors in (own_noise, noise)]
    return {unit.name: UnitSqnr(own, so_far) for (unit, _), own, so_far in zip(pairs, *ratios, strict=True)}


def _decibels(signal: Tensor, noise: Tensor) -> Tensor:
    return (10 * torch.log10(signal / noise.clamp(min=torch.finfo(torch.float32).tiny))).round(decimals=2)
