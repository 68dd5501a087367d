"""Dead leaves: overlapping shapes, the occlusion model of natural images."""

import math

import torch
from torch import Tensor

from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.procedural.noise import colored_noise
from vitdfq.synthesis.seeds import generator

TEXTURES = 4  # noise fields per image from which its leaves choose


def dead_leaves(index: int, seed: int, facts: TeacherFacts) -> Tensor:
    """Return a dead-leaves image: overlapping colored, textured shapes of all sizes. (3, H, W)

    The dead-leaves model is the occlusion model of natural images (Lee, Mumford and Huang, IJCV 2001): without data or a
    model it has edges, areas and scales as in photographs. As training data such images teach networks far more than noise
    does (Baradad et al., "Learning to See by Looking at Noise", arXiv 2106.05963). Shapes, sizes, colors and textures are
    this library's own choice.
    """
    rng = generator(seed, "dead_leaves", index)
    low, high = facts.low[0].cpu(), facts.high[0].cpu()
    return (low + render_dead_leaves(rng, *facts.image_size) * (high - low)).clamp(low, high)


def render_dead_leaves(rng: torch.Generator, height: int, width: int) -> Tensor:
    """Return one dead-leaves image (3, height, width), values in [0, 1]."""

    def uniform(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * torch.rand((), generator=rng).item()

    def color() -> Tensor:
        return torch.rand(3 if uniform() < 0.7 else 1, 1, 1, generator=rng).expand(3, 1, 1)

    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    textures = [colored_noise(rng, height, width, uniform(0.5, 2.0)) for _ in range(TEXTURES)]
    image = color() + uniform(0.0, 0.15) * textures[0]
    smallest, largest = min(height, width) / 50, 0.6 * min(height, width)
    for _ in range(int(5 + 10 ** uniform(0.3, 2.0))):  # between a few large shapes and a hundred
        if uniform() < 0.5:  # 1/radius is uniform: a power law without a preferred scale
            radius = 1 / (1 / smallest + uniform() * (1 / largest - 1 / smallest))
        else:
            radius = uniform(smallest, largest)
        angle, flatness, roundness = uniform(0, math.pi), uniform(0.3, 1.0), (1, 2, 8)[int(uniform(0, 3))]
        down, right = rows - uniform(0, height), columns - uniform(0, width)
        along = (right * math.cos(angle) + down * math.sin(angle)).abs() / radius
        across = (down * math.cos(angle) - right * math.sin(angle)).abs() / (radius * flatness)
        leaf = along**roundness + across**roundness < 1  # a diamond, an ellipse, or nearly a rectangle
        texture = textures[int(uniform(0, TEXTURES))].roll((int(uniform(0, height)), int(uniform(0, width))), (1, 2))
        image = torch.where(leaf, color() + uniform(0.0, 0.2) * texture, image)
    return image.clamp(0, 1)
