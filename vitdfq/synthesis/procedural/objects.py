"""Objects: a shape with a material, lit, with its shadow and small features, drawn over an image."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitdfq.synthesis.procedural.canvas import Canvas, Draws, lerp, rotated, smoothstep
from vitdfq.synthesis.procedural.creatures import crawler, figure, plant, swimmer, walker
from vitdfq.synthesis.procedural.materials import Material
from vitdfq.synthesis.procedural.shapes import Shape, assembly, blob, lathe, polygon, ring

SHAPES: dict[Callable[[Draws], Shape], float] = {  # shape -> how common it is
    blob: 3.0,
    walker: 3.0,
    crawler: 1.2,
    figure: 1.2,
    swimmer: 1.5,
    plant: 1.0,
    lathe: 1.5,
    assembly: 2.0,
    polygon: 0.7,
    ring: 0.5,
}
EXTENT = 1.8  # a shape and its shadow lie within this many of its sizes
SHADOW = 0.15  # how far shadows reach, in sizes


@dataclass(frozen=True)
class Thing:
    """What an object is, wherever it stands."""

    shape: Shape
    materials: tuple[Material, Material]  # of the whole, and of its part beyond `border`
    border: tuple[float, float]  # angle and place of a line
    roundness: float  # how far from the border the surface is level
    features: tuple[tuple[float, float, float], ...]  # x, y, radius of eyes, buttons, holes
    dark: Tensor  # (3, 1, 1), the features' color

    @staticmethod
    def drawn(canvas: Canvas) -> "Thing":
        """Return a random object."""
        draws = canvas.draws
        first = Material.drawn(canvas)
        features: list[tuple[float, float, float]] = []
        for _ in range(draws.choice((0, 0, 1, 1, 2, 3))):
            x, y, radius = draws.uniform(0.05, 0.5), draws.uniform(-0.5, 0.4), draws.log_uniform(0.03, 0.2)
            features += [(x, y, radius), (-x, y, radius)] if draws.chance(0.7) else [(x, y, radius)]
        return Thing(
            shape=draws.weighted(SHAPES)(draws),
            materials=(first, Material.drawn(canvas) if draws.chance(0.45) else first),
            border=(draws.choice((0.0, math.pi / 2, draws.uniform(0, math.pi))), draws.uniform(-0.5, 0.5)),
            roundness=draws.log_uniform(0.05, 0.8),
            features=tuple(features),
            dark=canvas.palette.natural("black") if draws.chance(0.6) else canvas.palette.color(),
        )

    def variant(self, canvas: Canvas) -> "Thing":
        """Return an object of the same kind with other shades."""

        def varied(material: Material) -> Material:
            first, second, third = (canvas.palette.variant(color, 0.08) for color in material.colors)
            return replace(material, colors=(first, second, third))

        return replace(self, materials=(varied(self.materials[0]), varied(self.materials[1])))


@dataclass(frozen=True)
class Pose:
    """Where an object stands, in the canvas' coordinates."""

    x: float
    y: float
    size: float
    angle: float = 0.0
    flipped: bool = False
    softness: float = 0.0  # width of its borders where it is out of focus
    shadow: float = 0.5  # darkness
    haze: float = 0.0  # share of its color that the image behind it replaces, with distance


def draw(canvas: Canvas, image: Tensor, thing: Thing, pose: Pose) -> Tensor:
    """Return the image (3, H, W) with an object in front."""
    window = _window(canvas, pose)
    if window is None:
        return image
    rows, columns = window
    x, y = (axis[rows, columns] for axis in canvas.grid)
    u, v = rotated((x - pose.x) / pose.size, (y - pose.y) / pose.size, pose.angle)
    u = -u if pose.flipped else u
    distance = thing.shape(u, v) * pose.size
    colors = _surface(canvas, thing, pose, u, v, distance)
    behind = image[:, rows, columns]
    colors = lerp(colors, behind, torch.tensor(pose.haze))
    shaded = behind * (1 - pose.shadow * _shadow(canvas, pose, distance))
    mask = smoothstep(0.5 - distance / (1.5 * canvas.pixel + pose.softness))
    image = image.clone()
    image[:, rows, columns] = lerp(shaded, colors, mask)
    return image


def _window(canvas: Canvas, pose: Pose) -> tuple[slice, slice] | None:
    """Return the rows and columns that an object can touch; None: it is outside of the image."""
    spans = []
    for center, reach, count in ((pose.y, canvas.reach[1], canvas.height), (pose.x, canvas.reach[0], canvas.width)):
        first = math.floor((center - EXTENT * pose.size + reach) / canvas.pixel)
        last = math.ceil((center + EXTENT * pose.size + reach) / canvas.pixel)
        spans.append(slice(max(first, 0), min(last, count)))
        if spans[-1].stop - spans[-1].start < 2:
            return None
    return spans[0], spans[1]


def _surface(canvas: Canvas, thing: Thing, pose: Pose, u: Tensor, v: Tensor, distance: Tensor) -> Tensor:
    """Return the lit colors (3, H, W) of an object."""
    first, second = thing.materials
    colors = first.paint(canvas, u, v)
    if second is not first:
        along, _ = rotated(u, v, thing.border[0])
        colors = lerp(colors, second.paint(canvas, u, v), smoothstep((along - thing.border[1]) * 12))
    for right, down, radius in thing.features:
        near = ((u - right) ** 2 + (v - down) ** 2).sqrt()
        colors = lerp(colors, thing.dark, smoothstep((1 - near / radius) * 3 + 0.5))
        glint = ((u - right + 0.3 * radius) ** 2 + (v - down + 0.3 * radius) ** 2).sqrt()
        colors = colors + 0.5 * smoothstep((0.25 * radius - glint) / radius * 6 + 0.5)
    depth = (-distance / (thing.roundness * pose.size)).clamp(0, 1)
    height = (1 - (1 - depth) ** 2).clamp(min=0).sqrt() * thing.roundness * pose.size
    if first.bump:
        height = height + first.bump * pose.size * 0.5 * canvas.noise(u, v, 2.0, 2)
    return lit(canvas, colors, height, first.gloss)


def lit(canvas: Canvas, colors: Tensor, height: Tensor, gloss: float = 0.0) -> Tensor:
    """Return the colors (3, H, W) of a surface of this height (H, W) under the canvas' light."""
    down, right = torch.gradient(height, spacing=canvas.pixel)
    normal = torch.rsqrt(1 + right**2 + down**2)
    x, y, z = canvas.light
    facing = (z - x * right - y * down) * normal
    colors = colors * (0.35 + 0.75 * facing.clamp(min=0))
    if gloss:
        mirrored = 2 * facing * normal - z  # the mirrored light's part toward the viewer
        colors = colors + gloss * mirrored.clamp(min=0) ** 12
    return colors


def _shadow(canvas: Canvas, pose: Pose, distance: Tensor) -> Tensor:
    """Return the darkness (H, W) around an object: its outline, moved away from the light, with soft borders."""
    x, y, _ = canvas.light
    right, down = (round(-axis * SHADOW * pose.size / canvas.pixel) for axis in (x, y))
    moved = pad(distance[None], (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)), mode="replicate")[0]
    height, width = distance.shape
    moved = moved[max(-down, 0) :, max(-right, 0) :][:height, :width]
    return torch.exp(-moved.clamp(min=0) / (SHADOW * pose.size))
