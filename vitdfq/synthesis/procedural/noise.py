"""Gaussian noise, and noise of a colored spectrum."""

import torch
from torch import Tensor

from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.seeds import generator


def noise(index: int, seed: int, facts: TeacherFacts) -> Tensor:
    """Return Gaussian noise N(0, 1) in normalized units, clamped to the teacher's valid range. (3, H, W)"""
    low, high = facts.low[0].cpu(), facts.high[0].cpu()
    return torch.randn(len(low), *facts.image_size, generator=generator(seed, "noise", index)).clamp(low, high)


def colored_noise(rng: torch.Generator, height: int, width: int, exponent: float) -> Tensor:
    """Return noise (3, height, width) of unit standard deviation whose amplitude falls as frequency^-exponent; channels mix."""
    down, right = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    frequency = (down**2 + right**2).sqrt().clamp(min=1 / max(height, width))
    white = torch.randn(3, height, width, generator=rng)
    mixed = torch.einsum("cd,dhw->chw", torch.randn(3, 3, generator=rng), white)
    spectrum = torch.fft.rfft2(mixed) * frequency**-exponent
    spectrum[:, 0, 0] = 0  # without a mean, which would shift the leaf's color
    field = torch.fft.irfft2(spectrum, s=(height, width))
    return field / field.std().clamp(min=1e-6)
