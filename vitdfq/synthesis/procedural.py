"""Procedural images (arXiv 2106.05963): `PROCEDURAL[name](index, seed, facts)` -> (3, H, W), normalized, on the CPU."""

import math

import torch
from torch import Tensor

from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.seeds import generator

TEXTURES = 4  # fields of noise an image's leaves choose from


def noise(index: int, seed: int, facts: TeacherFacts) -> Tensor:
    """Gaussian noise clamped to the teacher's valid range."""
    low, high = facts.low[0].cpu(), facts.high[0].cpu()
    return torch.randn(len(low), *facts.image_size, generator=generator(seed, "noise", index)).clamp(low, high)


def dead_leaves(index: int, seed: int, facts: TeacherFacts) -> Tensor:
    """Overlapping coloured and textured shapes of all sizes: no data, no model, yet edges, areas and scales as in photographs.

    The occlusion model of natural images (Lee, Mumford and Huang, IJCV 2001); images like these teach networks far more than
    noise does (arXiv 2106.05963).
    """
    rng = generator(seed, "dead_leaves", index)
    low, high = facts.low[0].cpu(), facts.high[0].cpu()
    return (low + paint(rng, *facts.image_size) * (high - low)).clamp(low, high)


def paint(rng: torch.Generator, height: int, width: int) -> Tensor:
    """Return one dead-leaves image (3, height, width) in [0, 1]."""

    def uniform(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * torch.rand((), generator=rng).item()

    def color() -> Tensor:
        return torch.rand(3 if uniform() < 0.7 else 1, 1, 1, generator=rng).expand(3, 1, 1)

    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    textures = [coloured_noise(rng, height, width, uniform(0.5, 2.0)) for _ in range(TEXTURES)]
    image = color() + uniform(0.0, 0.15) * textures[0]
    smallest, largest = min(height, width) / 50, 0.6 * min(height, width)
    for _ in range(int(5 + 10 ** uniform(0.3, 2.0))):  # a few large shapes, or a clutter
        if uniform() < 0.5:  # sizes without a scale of their own
            radius = 1 / (1 / smallest + uniform() * (1 / largest - 1 / smallest))
        else:
            radius = uniform(smallest, largest)
        angle, flatness, roundness = uniform(0, math.pi), uniform(0.3, 1.0), (1, 2, 8)[int(uniform(0, 3))]
        down, right = rows - uniform(0, height), columns - uniform(0, width)
        along = (right * math.cos(angle) + down * math.sin(angle)).abs() / radius
        across = (down * math.cos(angle) - right * math.sin(angle)).abs() / (radius * flatness)
        leaf = along**roundness + across**roundness < 1  # a diamond, an ellipse, nearly a rectangle
        texture = textures[int(uniform(0, TEXTURES))].roll((int(uniform(0, height)), int(uniform(0, width))), (1, 2))
        image = torch.where(leaf, color() + uniform(0.0, 0.2) * texture, image)
    return image.clamp(0, 1)


def coloured_noise(rng: torch.Generator, height: int, width: int, exponent: float) -> Tensor:
    """Return (3, height, width) noise of unit deviation, its amplitude falling as frequency^-exponent, channels mixed."""
    down, right = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    frequency = (down**2 + right**2).sqrt().clamp(min=1 / max(height, width))
    white = torch.randn(3, height, width, generator=rng)
    mixed = torch.einsum("cd,dhw->chw", torch.randn(3, 3, generator=rng), white)
    spectrum = torch.fft.rfft2(mixed) * frequency**-exponent
    spectrum[:, 0, 0] = 0  # its mean would be a color
    field = torch.fft.irfft2(spectrum, s=(height, width))
    return field / field.std().clamp(min=1e-6)


PROCEDURAL = {
    "noise": noise,
    "dead_leaves": dead_leaves,
}
