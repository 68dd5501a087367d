"""Outlines of things: signed distances to their borders, negative inside."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vitdfq.synthesis.procedural.canvas import Draws, rotated

Shape = Callable[[Tensor, Tensor], Tensor]
"""`shape(x, y)` returns the approximate signed distance (H, W) at x, y (H, W); the shape fills about the circle of radius 1."""

HARMONICS = 8


def blob(draws: Draws) -> Shape:
    """A rounded outline r(angle), a sum of harmonics; at random with mirror symmetry or several equal arms."""
    arms = draws.choice((1, 1, 1, 1, 2, 3, 4, 5, 6, 8))
    orders = torch.arange(1, HARMONICS + 1) * arms
    sizes = draws.normal(HARMONICS) * draws.uniform(0.05, 0.35) * torch.arange(1, HARMONICS + 1) ** -draws.uniform(0.8, 2.0)
    mirrored = draws.chance(0.5)
    phases = draws.rand(HARMONICS) * (0 if mirrored else 2 * math.pi)
    flatness = draws.uniform(0.4, 1.0) if arms < 3 else 1.0

    def distance(x: Tensor, y: Tensor) -> Tensor:
        y = y / flatness
        angles = torch.atan2(x, y)  # the axis of the mirror is vertical
        radius = 0.75 + (sizes[:, None, None] * torch.cos(orders[:, None, None] * angles + phases[:, None, None])).sum(0)
        return ((x * x + y * y).sqrt() - radius.clamp(0.15, 1.1)) * flatness * 0.8

    return distance


def box(half_width: float, half_height: float, corner: float, x: Tensor, y: Tensor) -> Tensor:
    """Return the distance to a rectangle with round corners."""
    right, down = x.abs() - half_width + corner, y.abs() - half_height + corner
    outside = (right.clamp(min=0) ** 2 + down.clamp(min=0) ** 2).sqrt()
    return outside + torch.maximum(right, down).clamp(max=0) - corner


def lathe(draws: Draws) -> Shape:
    """A turned thing: bottles, vases, lamps, towers, fruit. Its width is a function of the height."""
    count = draws.integer(3, 7)
    widths = draws.rand(count) * 0.5 + 0.08
    widths[draws.integer(0, count - 1)] = 0.6
    smooth, tall = draws.chance(0.6), draws.uniform(0.7, 1.0)
    scale = draws.uniform(0.5, 1.3)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        place = ((y / tall + 1) / 2).clamp(0, 1) * (count - 1)
        lower = place.floor().clamp(max=count - 2)
        share = place - lower
        share = share * share * (3 - 2 * share) if smooth else (share * 4 - 1.5).clamp(0, 1)
        width = widths[lower.long()] * (1 - share) + widths[lower.long() + 1] * share
        return torch.maximum((x.abs() - width * scale) * 0.8, y.abs() - tall)

    return distance


def polygon(draws: Draws) -> Shape:
    """A polygon with round corners, or a star."""
    corners, inner, turn = draws.integer(3, 9), draws.choice((1.0, 1.0, draws.uniform(0.3, 0.8))), draws.uniform(0, math.pi)
    flatness = draws.uniform(0.5, 1.0)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        y = y / flatness
        sector = math.pi / corners
        angle = ((torch.atan2(y, x) + turn) % (2 * sector) - sector).abs()
        radius = (x * x + y * y).sqrt()
        u, v = radius * torch.cos(angle), radius * torch.sin(angle)
        # The border runs from a corner at (inner, 0) to one at the angle `sector`.
        right, down = 0.9 * math.cos(sector) - 0.9 * inner, 0.9 * math.sin(sector)
        length = math.hypot(right, down)
        return ((u - 0.9 * inner) * down - v * right) / length * flatness

    return distance


def ring(draws: Draws) -> Shape:
    """A ring, or an arc of one."""
    radius, width = draws.uniform(0.5, 0.8), draws.uniform(0.05, 0.3)
    flatness, cut = draws.uniform(0.4, 1.0), draws.choice((2.0, 2.0, draws.uniform(-0.5, 0.7)))

    def distance(x: Tensor, y: Tensor) -> Tensor:
        y = y / flatness
        around = ((x * x + y * y).sqrt() - radius).abs() - width
        return torch.maximum(around * flatness, y - cut)

    return distance


def assembly(draws: Draws) -> Shape:
    """Boxes and discs put together, at random mirrored: furniture, vehicles, machines, buildings."""
    parts: list[tuple[float, ...]] = []
    base = (draws.uniform(0.35, 0.9), draws.uniform(0.15, 0.6))
    parts.append((0.0, draws.uniform(-0.2, 0.2), *base, draws.uniform(0.01, 0.15), 0.0))
    for _ in range(draws.integer(1, 5)):
        sizes = (draws.log_uniform(0.04, 0.5), draws.log_uniform(0.04, 0.6))
        corner = min(sizes) * draws.choice((0.1, 0.5, 1.0))
        across = draws.uniform(0, base[0])
        down = parts[0][1] + draws.sign() * (base[1] + draws.uniform(-0.5, 1.0) * sizes[1])
        parts.append((across, down, *sizes, corner, draws.choice((0.0, 0.0, draws.uniform(-0.8, 0.8)))))
    wheels = draws.uniform(0.1, 0.3) if draws.chance(0.4) else 0.0
    apart, mirrored = draws.uniform(0.4, 0.9) * base[0], draws.chance(0.6)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        side = x.abs() if mirrored else x
        found = []
        for right, down, half_width, half_height, corner, angle in parts:
            u, v = rotated(side - right, y - down, angle)
            found.append(box(half_width, half_height, corner, u, v))
        if wheels:
            found.append(((x.abs() - apart) ** 2 + (y - parts[0][1] - base[1]) ** 2).sqrt() - wheels)
        return torch.stack(found).amin(0)

    return distance
