"""Materials: the colors of a surface before it is lit."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vitdfq.synthesis.procedural.canvas import Canvas, lerp, rotated, smoothstep

Pattern = Callable[[Canvas, Tensor, Tensor, float], Tensor]
"""`pattern(canvas, x, y, size)` returns a field (H, W) in [0, 1] whose details are about `size` wide."""


def plain(canvas: Canvas, x: Tensor, y: Tensor, size: float) -> Tensor:
    """One color, with faint clouds."""
    return 0.15 * smoothstep(canvas.noise(x, y, 8 * size) * 0.3 + 0.5)


def blotches(canvas: Canvas, x: Tensor, y: Tensor, size: float) -> Tensor:
    """Two colors with ragged or soft borders."""
    sharpness = canvas.draws.log_uniform(0.3, 6)
    return smoothstep((canvas.noise(x, y, 8 * size) + canvas.draws.uniform(-1, 1)) * sharpness + 0.5)


def stripes(canvas: Canvas, x: Tensor, y: Tensor, size: float) -> Tensor:
    """Straight or wavy bands, in any direction, sharp or soft."""
    draws = canvas.draws
    along, _ = rotated(x, y, draws.choice((0.0, math.pi / 2, draws.uniform(0, math.pi))))
    bend = draws.choice((0.0, 0.3, 1.5)) * canvas.noise(x, y, 16 * size, 4)
    return smoothstep((torch.sin(along * math.pi / size + bend) + draws.uniform(-0.6, 0.6)) * draws.log_uniform(0.5, 6) + 0.5)


def rings(canvas: Canvas, x: Tensor, y: Tensor, size: float) -> Tensor:
    """Rings or spokes around a point, or a spiral of both."""
    draws = canvas.draws
    x, y = x - draws.uniform(-0.3, 0.3), y - draws.uniform(-0.3, 0.3)
    phase = (x * x + y * y).sqrt() * math.pi / size * draws.choice((0, 1, 1))
    phase = phase + torch.atan2(y, x) * draws.choice((0, draws.integer(3, 16)))
    phase = phase + draws.choice((0.0, 0.6)) * canvas.noise(x, y, 8 * size, 3)
    return smoothstep(torch.sin(phase) * draws.log_uniform(0.5, 4) + 0.5)


def checks(canvas: Canvas, x: Tensor, y: Tensor, size: float) -> Tensor:
    """A woven or checkered surface."""
    x, y = rotated(x, y, canvas.draws.choice((0.0, math.pi / 4, canvas.draws.uniform(0, math.pi))))
    first, second = torch.sin(x * math.pi / size), torch.sin(y * math.pi / size)
    product = first * second if canvas.draws.chance(0.5) else (first + second) / 2
    return smoothstep(product * canvas.draws.log_uniform(0.7, 6) + 0.5)


def bricks(canvas: Canvas, x: Tensor, y: Tensor, size: float) -> Tensor:
    """Panes, tiles or bricks, each of its own shade, with joints between them."""
    draws = canvas.draws
    aspect, offset, joint = draws.log_uniform(0.4, 2.5), draws.choice((0.0, 0.0, 0.5)), draws.uniform(0.05, 0.35)
    rows = y / size / aspect
    columns = x / size + offset * (rows.floor() % 2)
    shades = draws.rand(16, 16)[rows.floor().long() % 16, columns.floor().long() % 16]
    u, v = columns - columns.floor(), (rows - rows.floor())
    edge = torch.minimum(torch.minimum(u, 1 - u), torch.minimum(v, 1 - v) * aspect)
    return lerp(torch.ones(()), shades * draws.uniform(0.1, 0.8), smoothstep((edge - joint / 2) / 0.06 + 0.5))


def cells(canvas: Canvas, x: Tensor, y: Tensor, size: float) -> Tensor:
    """Cells around scattered points: pebbles, scales, cracks or spots."""
    nearest, second, shade = _nearest_points(canvas, x / (2 * size), y / (2 * size))
    kind = canvas.draws.integer(0, 3)
    if kind == 0:  # spots
        return smoothstep((canvas.draws.uniform(0.25, 0.45) - nearest) * 10 + 0.5)
    if kind == 1:  # joints
        return smoothstep(1 - (second - nearest) * canvas.draws.uniform(3, 10))
    if kind == 2:  # domes
        return smoothstep(nearest * 1.3)
    return lerp(shade, torch.ones(()), smoothstep(1 - (second - nearest) * 8))


def _nearest_points(canvas: Canvas, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distances to the nearest and second nearest of the points scattered one in each unit square, and its shade."""
    scattered = canvas.draws.rand(16, 16, 3)
    scattered[..., :2] = 0.5 + (scattered[..., :2] - 0.5) * canvas.draws.uniform(0.2, 1)
    columns, rows = x.floor(), y.floor()
    steps = [(right, down) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    found = []
    for right, down in steps:
        point = scattered[(rows + down).long() % 16, (columns + right).long() % 16]
        distance = (columns + right + point[..., 0] - x) ** 2 + (rows + down + point[..., 1] - y) ** 2
        found.append(torch.stack((distance, point[..., 2])))
    distances, shades = torch.stack(found, 1)
    two, which = distances.topk(2, dim=0, largest=False)
    nearest, second = two.sqrt()
    return nearest, second, shades.gather(0, which[:1])[0]


def fur(canvas: Canvas, x: Tensor, y: Tensor, size: float) -> Tensor:
    """Fibers: hair, grass, wood, brushed metal."""
    draws = canvas.draws
    x, y = rotated(x, y, draws.choice((0.0, math.pi / 2, draws.uniform(0, math.pi))))
    bend = draws.uniform(0, 0.3) * canvas.noise(x, y, 3.0, 4)
    return smoothstep(canvas.noise(x / draws.log_uniform(4, 20), y + bend * size * 4, 10 * size, 1) * 0.4 + 0.5)


def marble(canvas: Canvas, x: Tensor, y: Tensor, size: float) -> Tensor:
    """Veins: the zeros of a warped noise."""
    warp = canvas.draws.uniform(0, 2) * size
    x, y = x + warp * canvas.noise(x, y, 8 * size, 3), y + warp * canvas.noise(x, y, 8 * size, 3)
    return smoothstep(1 - canvas.noise(x, y, 10 * size, 3).abs() * canvas.draws.uniform(1, 4))


PATTERNS: dict[Pattern, float] = {  # pattern -> how common it is
    plain: 3.0,
    blotches: 3.0,
    fur: 2.0,
    cells: 1.5,
    stripes: 1.2,
    marble: 1.0,
    bricks: 0.8,
    rings: 0.6,
    checks: 0.6,
}


@dataclass(frozen=True)
class Material:
    """How a surface looks: two patterns over a gradient of colors, and how light falls on it."""

    colors: tuple[Tensor, Tensor, Tensor]
    patterns: tuple[Pattern, Pattern]
    sizes: tuple[float, float]
    grain: float  # deviation of the fine noise
    bump: float  # height of the fine noise
    gloss: float  # share of the light that is mirrored
    gradient: tuple[float, float]  # angle, and share of the third color at its end

    @staticmethod
    def drawn(canvas: Canvas, size: float = 1.0, colors: tuple[Tensor, Tensor, Tensor] | None = None) -> "Material":
        """Return a random material for a surface of about `size` from its center to its edge."""
        draws, palette = canvas.draws, canvas.palette
        if colors is None:
            base = palette.color()
            second = palette.variant(base, draws.uniform(0.05, 0.3)) if draws.chance(0.6) else palette.color()
            colors = (base, second, palette.variant(base, 0.25) if draws.chance(0.7) else palette.color())
        return Material(
            colors=colors,
            patterns=(draws.weighted(PATTERNS), draws.weighted(PATTERNS)),
            sizes=(size * draws.log_uniform(0.04, 0.5), size * draws.log_uniform(0.04, 0.3)),
            grain=draws.choice((0.01, 0.03, 0.08)) * draws.uniform(),
            bump=draws.choice((0.0, 0.006, 0.024)) * (1.0 if draws.chance(0.7) else 3.0) * size,
            gloss=draws.choice((0.0, 0.0, 0.2, 0.7)) * draws.uniform(),
            gradient=(draws.uniform(-math.pi, math.pi), draws.uniform(0, 0.8)),
        )

    def paint(self, canvas: Canvas, x: Tensor, y: Tensor) -> Tensor:
        """Return the colors (3, H, W) at the surface's own coordinates x, y (H, W)."""
        base, second, third = self.colors
        along, _ = rotated(x, y, self.gradient[0])
        image = lerp(base, third, smoothstep(along * 0.5 + 0.5) * self.gradient[1])
        image = lerp(image, second, self.patterns[0](canvas, x, y, self.sizes[0]))
        if self.patterns[1] is not plain:  # fainter, of the same colors: a surface within the pattern
            image = image * (1 + 0.35 * (self.patterns[1](canvas, x, y, self.sizes[1]) - 0.5))
        return image * (1 + self.grain * canvas.noise(x, y, 1.0, 1))
