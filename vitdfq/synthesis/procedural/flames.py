"""Fractal flames: densities of points under random maps that shrink the plane, as a texture or an object."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vitdfq.synthesis.procedural.canvas import Canvas, blurred, lerp

POINTS_PER_PIXEL = 0.25  # that move at the same time
STEPS, SETTLING = 36, 6  # the first positions are not on the attractor yet

Variation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _linear(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x, y


def _sinus(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return torch.sin(1.5 * x), torch.sin(1.5 * y)


def _sphere(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    scale = 1 / (0.3 + x * x + y * y)
    return x * scale, y * scale


def _swirl(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    square = x * x + y * y
    sine, cosine = torch.sin(square), torch.cos(square)
    return x * sine - y * cosine, x * cosine + y * sine


VARIATIONS: tuple[Variation, ...] = (_linear, _linear, _linear, _sinus, _sphere, _swirl)


def flame(canvas: Canvas, image: Tensor) -> Tensor:
    """Return the image (3, H, W) with a fractal drawn over it.

    The fractal is the attractor of an iterated function system (Kataoka et al., "Pre-training without Natural Images", and
    arXiv 2103.13023): points that jump by a randomly chosen map of a few. Each map adds a color of its own.
    """
    draws = canvas.draws
    count = draws.integer(2, 5)
    angles = (draws.rand(count) - 0.5) * 2 * math.pi * draws.choice((0.2, 1.0))
    shrink = (0.4 + 0.5 * draws.rand(count, 2)) * torch.where(draws.rand(count, 2) < 0.2, -1.0, 1.0)
    cosine, sine = torch.cos(angles), torch.sin(angles)
    maps = torch.stack((cosine * shrink[:, 0], -sine * shrink[:, 1], sine * shrink[:, 0], cosine * shrink[:, 1]), 1)
    maps = torch.cat((maps, 1.4 * (draws.rand(count, 2) - 0.5)), 1)
    palette = torch.stack([canvas.palette.color()[:, 0, 0] for _ in range(count)])
    density, colors = _attractor(canvas, maps, palette, draws.choice(VARIATIONS))
    cover = (density / density[density > 0].mean().clamp(min=1e-6) * draws.uniform(0.4, 3)).clamp(0, 1)
    return lerp(image, colors * draws.uniform(0.9, 1.4), cover)


def _attractor(canvas: Canvas, maps: Tensor, palette: Tensor, variation: Variation) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the density (H, W) of the attractor and its colors (3, H, W), scaled to fill the image."""
    draws, height, width = canvas.draws, canvas.height, canvas.width
    count = max(256, int(POINTS_PER_PIXEL * height * width))
    x, y = 2 * draws.rand(2, count) - 1
    shades = torch.full((count, 3), 0.5)
    choices = torch.randint(len(maps), (STEPS, count), generator=draws.rng)
    places, colors = [], []
    for step in range(STEPS):
        a, b, c, d, right, down = maps[choices[step]].T
        x, y = variation(a * x + b * y + right, c * x + d * y + down)
        shades = (shades + palette[choices[step]]) / 2
        if step >= SETTLING:
            places.append(torch.stack((y, x)))
            colors.append(shades)
    points, shades = torch.cat(places, 1), torch.cat(colors)
    sample = points[:, :: max(1, points.shape[1] // 4096)]
    low, high = (torch.quantile(sample, share, dim=1, keepdim=True) for share in (0.02, 0.98))
    zoom = draws.uniform(0.6, 1.6)
    points = (points - (low + high) / 2) / (high - low).clamp(min=1e-3).amax() * zoom + 0.5
    pixels = (points * torch.tensor([[height], [width]])).long()
    inside = ((pixels >= 0) & (pixels < torch.tensor([[height], [width]]))).all(0)
    flat = (pixels[0] * width + pixels[1])[inside]
    total = torch.zeros(4, height * width)
    total[3].index_add_(0, flat, torch.ones(len(flat)))
    for channel in range(3):
        total[channel].index_add_(0, flat, shades[inside, channel])
    total = blurred(total.reshape(4, height, width), 0.5)
    return torch.log1p(total[3]), total[:3] / total[3].clamp(min=1e-3)
