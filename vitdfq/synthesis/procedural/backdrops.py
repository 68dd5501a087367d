"""Backdrops: what is behind the objects of a scene."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vitdfq.synthesis.procedural.canvas import Canvas, blurred, lerp, rotated, smoothstep
from vitdfq.synthesis.procedural.flames import flame
from vitdfq.synthesis.procedural.materials import Material, cells
from vitdfq.synthesis.procedural.objects import lit


def surface(canvas: Canvas) -> Tensor:
    """A wall, a cloth, a heap, seen from the front, with light that falls off to one side."""
    draws = canvas.draws
    x, y = canvas.grid
    size = draws.log_uniform(0.2, 1.5)
    material = Material.drawn(canvas, size)
    x, y = rotated(x, y, draws.uniform(-0.3, 0.3))
    lean = draws.uniform(-0.3, 0.3)  # of the surface, so that one side is nearer
    x, y = x / (1 + lean * y), y / (1 + lean * y)
    colors = material.paint(canvas, x, y)
    relief = 0.06 * size * draws.uniform(0, 1.5) * canvas.noise(x, y, 4 * size, 2)
    if draws.chance(0.25):
        relief = relief - 0.3 * size * cells(canvas, x, y, 0.3 * size)
    return lit(canvas, colors, relief, material.gloss * 0.5)


def studio(canvas: Canvas) -> Tensor:
    """A smooth gradient: a plain wall, a clear sky, deep water, a table of the same color."""
    draws, palette = canvas.draws, canvas.palette
    x, y = canvas.grid
    likely = draws.choice(("white", "white", "black", "stone", "sky", "water"))
    base = palette.natural(likely) if draws.chance(0.6) else palette.color()
    angle = draws.uniform(-math.pi, math.pi)
    along, _ = rotated(x, y, angle)
    other = palette.variant(base, draws.uniform(0.05, 0.5))
    image = lerp(base, other, smoothstep(along * draws.uniform(0.3, 1) + 0.5))
    spot = torch.exp(-((x - draws.uniform(-1, 1)) ** 2 + (y - draws.uniform(-1, 1)) ** 2) * draws.uniform(0.3, 2))
    return image * (1 + draws.uniform(-0.4, 0.4) * spot)


def out_of_focus(canvas: Canvas) -> Tensor:
    """Far things as a camera with a near focus sees them: soft clouds of color, at random with discs of light."""
    draws, palette = canvas.draws, canvas.palette
    x, y = canvas.grid
    base = palette.color()
    image = base.expand(3, canvas.height, canvas.width)
    for _ in range(draws.integer(2, 5)):
        color = palette.variant(base, 0.3) if draws.chance(0.5) else palette.color()
        field = canvas.noise(x, y, draws.log_uniform(1.5, 8), draws.choice((2, 3, 4)))
        image = lerp(image, color, smoothstep((field + draws.uniform(-0.8, 0.5)) * draws.uniform(0.4, 2) + 0.3))
    for _ in range(draws.choice((0, 0, 0, 6, 14))):
        radius = draws.uniform(0.04, 0.2)
        near = ((x - draws.uniform(-1.2, 1.2)) ** 2 + (y - draws.uniform(-1.2, 1.2)) ** 2).sqrt()
        disc = smoothstep((radius - near) / canvas.pixel + 0.5) * draws.uniform(0.1, 0.6)
        image = lerp(image, palette.variant(base, 0.2) * 0.5 + 0.5, disc)
    return blurred(image, min(canvas.height, canvas.width) * draws.log_uniform(0.01, 0.06))


def interior(canvas: Canvas) -> Tensor:
    """A wall above a floor or a table."""
    draws = canvas.draws
    x, y = canvas.grid
    border = draws.uniform(-0.3, 0.7) + draws.uniform(-0.15, 0.15) * x
    wall = Material.drawn(canvas, draws.uniform(0.5, 1.5)).paint(canvas, x, y)
    ground = _ground(canvas, border - 0.3)
    image = lerp(wall * draws.uniform(0.6, 1.1), ground, smoothstep((y - border) / canvas.pixel + 0.5))
    return image * (1 - 0.3 * torch.exp(-(y - border).abs() * 8))


def _ground(canvas: Canvas, horizon: float | Tensor) -> Tensor:
    """Return a level surface (3, H, W) seen in perspective below the horizon."""
    draws = canvas.draws
    x, y = canvas.grid
    depth = 0.5 / (y - horizon).clamp(min=0.05)
    material = Material.drawn(canvas, draws.log_uniform(0.3, 1.5))
    colors = material.paint(canvas, x * depth, depth * draws.uniform(1, 2.5))
    mean = colors.mean((1, 2), keepdim=True)
    return lerp(mean, colors, torch.exp(-(depth - 1).clamp(min=0) * 0.35))  # far details fade into one color


def landscape(canvas: Canvas) -> Tensor:
    """A sky with clouds over ridges and a ground or water in perspective."""
    draws, palette = canvas.draws, canvas.palette
    x, y = canvas.grid
    horizon = draws.uniform(-0.6, 0.6)
    high = palette.natural("sky") if draws.chance(0.65) else palette.color()
    low = lerp(high, palette.natural(draws.choice(("white", "white", "warm", "sky"))), torch.tensor(draws.uniform(0.2, 0.9)))
    image = lerp(high, low, smoothstep((y + 1) / (horizon + 1)))
    if draws.chance(0.65):
        stretched = y * draws.uniform(1, 3.5) / (1.2 + y - horizon).clamp(min=0.3)
        clouds = canvas.noise(x, stretched, draws.uniform(2, 6), draws.choice((2, 3)))
        cover = smoothstep((clouds + draws.uniform(-1.2, 0.8)) * draws.uniform(0.4, 1.5) + 0.3)
        image = lerp(image, palette.natural("white") * draws.uniform(0.6, 1), cover * draws.uniform(0.4, 1))
    ridges = draws.choice((0, 1, 1, 2, 3))
    air, ridge = low, palette.color()
    for index in range(ridges):
        color = lerp(air, ridge, torch.tensor((index + 1) / (ridges + 0.5)))  # the farther, the more air before it
        image = _ridge(canvas, image, horizon, color, index / ridges)
    below = smoothstep((y - horizon) / canvas.pixel + 0.5)
    ground = _water(canvas, image, horizon) if draws.chance(0.3) else _ground(canvas, horizon)
    haze = torch.exp(-(y - horizon).clamp(min=0) * draws.uniform(3, 12)) * draws.uniform(0, 0.6)
    return lerp(image, lerp(ground, low, haze), below)


def _ridge(canvas: Canvas, image: Tensor, horizon: float, color: Tensor, nearness: float) -> Tensor:
    """Return the image with a line of hills, trees or roofs on the horizon."""
    draws = canvas.draws
    x, y = canvas.grid
    tall = draws.uniform(0.05, 0.6) * (1.2 - nearness)
    line = canvas.noise(x[:1], torch.zeros_like(x[:1]), draws.uniform(2, 8), draws.choice((1, 2, 3)))
    if draws.chance(0.2):
        line = (line * 2).round() / 2  # roofs
    top = horizon - tall * (0.4 + 0.3 * line)
    texture = canvas.noise(x, y, draws.uniform(1, 4), draws.choice((1, 2)))
    return lerp(image, color * (1 + draws.uniform(0, 0.3) * texture), smoothstep((y - top) / (2 * canvas.pixel) + 0.5))


def _water(canvas: Canvas, image: Tensor, horizon: float) -> Tensor:
    """Return water (3, H, W): the image above the horizon mirrored, broken by waves."""
    draws = canvas.draws
    x, y = canvas.grid
    depth = 0.5 / (y - horizon).clamp(min=0.05)
    waves = canvas.noise(x * depth, depth * draws.uniform(2, 6), 2.0, 1)
    rows = (2 * horizon - y + 0.1 * waves + canvas.reach[1]) / canvas.pixel
    columns = torch.arange(canvas.width).expand(canvas.height, -1)
    mirrored = image[:, rows.long().clamp(0, canvas.height - 1), columns]
    color = canvas.palette.natural("water")
    return lerp(mirrored, color, torch.tensor(draws.uniform(0.3, 0.9))) * (1 + 0.2 * draws.uniform() * waves)


def fractal(canvas: Canvas) -> Tensor:
    """A fractal flame over a smooth gradient."""
    return flame(canvas, studio(canvas))


BACKDROPS: dict[Callable[[Canvas], Tensor], float] = {  # backdrop -> how common it is
    out_of_focus: 3.0,
    landscape: 3.0,
    surface: 2.0,
    studio: 1.5,
    interior: 1.5,
    fractal: 0.4,
}
