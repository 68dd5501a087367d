"""Compositions of a scene: which things stand where, before which backdrop."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from vitdfq.synthesis.procedural.backdrops import BACKDROPS, fractal, interior, landscape, studio, surface
from vitdfq.synthesis.procedural.canvas import Canvas, blurred, smoothstep
from vitdfq.synthesis.procedural.creatures import strands
from vitdfq.synthesis.procedural.materials import bricks
from vitdfq.synthesis.procedural.objects import Pose, Thing, draw
from vitdfq.synthesis.procedural.shapes import assembly, lathe, polygon, ring


def portrait(canvas: Canvas) -> Tensor:
    """One large thing, near the center or cut by the frame, before a backdrop that is often out of focus."""
    draws = canvas.draws
    image = _backdrop(canvas)
    size = draws.uniform(0.5, 1.1) if draws.chance(0.8) else draws.uniform(1.1, 2.2)
    pose = _pose(canvas, size, 0.35 if size < 1.1 else 0.8)
    return draw(canvas, image, Thing.drawn(canvas), pose)


def pair(canvas: Canvas) -> Tensor:
    """A few different things of similar sizes."""
    draws = canvas.draws
    image = _backdrop(canvas)
    for _ in range(draws.integer(2, 4)):
        image = draw(canvas, image, Thing.drawn(canvas), _pose(canvas, draws.uniform(0.25, 0.8), 0.8))
    return image


def group(canvas: Canvas) -> Tensor:
    """Many things of one kind: a herd, a heap, a shelf, a row of windows."""
    draws = canvas.draws
    image = _backdrop(canvas)
    thing, size = Thing.drawn(canvas), draws.log_uniform(0.12, 0.45)
    count = min(40, int(draws.uniform(0.4, 1.6) / size**2) + 2)
    upright = draws.chance(0.6)
    poses = [_pose(canvas, size * draws.uniform(0.8, 1.25), 1.1, upright) for _ in range(count)]
    for pose in sorted(poses, key=lambda pose: pose.y):  # the lower, the nearer
        image = draw(canvas, image, thing.variant(canvas), pose)
    return image


def rows(canvas: Canvas) -> Tensor:
    """Equal things in a grid."""
    draws = canvas.draws
    image = surface(canvas) if draws.chance(0.6) else _backdrop(canvas)
    thing = Thing.drawn(canvas)
    across, down = draws.integer(2, 6), draws.integer(2, 6)
    right, low = canvas.reach
    size = min(right / across, low / down) * draws.uniform(0.6, 1.0)
    for row in range(down):
        for column in range(across):
            x, y = (2 * column + 1 - across) / across * right, (2 * row + 1 - down) / down * low
            image = draw(canvas, image, thing, Pose(x, y, size, shadow=0.4))
    return image


def view(canvas: Canvas) -> Tensor:
    """A landscape, at random with small things on its ground."""
    draws = canvas.draws
    image = landscape(canvas)
    thing = Thing.drawn(canvas)
    for _ in range(draws.choice((0, 0, 1, 2, 4))):
        thing = thing.variant(canvas) if draws.chance(0.5) else Thing.drawn(canvas)
        y = draws.uniform(-0.1, 0.8)
        size, flipped = draws.uniform(0.1, 0.3) * (1 + y), draws.chance(0.5)  # the lower, the nearer
        pose = Pose(draws.uniform(-1, 1), y, size, flipped=flipped, haze=draws.uniform(0, 0.3))
        image = draw(canvas, image, thing, pose)
    return image


def close_up(canvas: Canvas) -> Tensor:
    """A surface that fills the frame."""
    return surface(canvas)


def clutter(canvas: Canvas) -> Tensor:
    """Things of all sizes over one another, the nearest or the farthest out of focus."""
    draws = canvas.draws
    image = _backdrop(canvas)
    count = draws.integer(6, 14)
    kinds = [Thing.drawn(canvas) for _ in range(draws.integer(2, 5))]
    for index in range(count):
        size = draws.log_uniform(0.15, 0.9)
        image = draw(canvas, image, draws.choice(kinds).variant(canvas), _pose(canvas, size, 1.0, upright=False))
        if index == count - 2 and draws.chance(0.4):
            image = blurred(image, min(canvas.height, canvas.width) * draws.uniform(0.005, 0.03))
    return image


def heap(canvas: Canvas) -> Tensor:
    """Small things of a few kinds heaped on a round or square base: a plate, a basket, a nest."""
    draws = canvas.draws
    image = interior(canvas) if draws.chance(0.5) else surface(canvas)
    size, angle = draws.uniform(0.6, 0.95), draws.uniform(-math.pi, math.pi)
    x, y = draws.uniform(-0.3, 0.3), draws.uniform(-0.2, 0.3)
    base = replace(Thing.drawn(canvas), shape=draws.choice((ring, polygon, polygon))(draws), features=())
    image = draw(canvas, image, base, Pose(x, y, size, angle))
    kinds = [Thing.drawn(canvas) for _ in range(draws.integer(1, 3))]
    small = size * draws.uniform(0.15, 0.4)
    for _ in range(draws.integer(5, 18)):
        far, turn = 0.7 * size * draws.uniform() ** 0.5, draws.uniform(-math.pi, math.pi)
        pose = Pose(x + far * math.cos(turn), y + 0.8 * far * math.sin(turn), small * draws.uniform(0.7, 1.2), turn)
        image = draw(canvas, image, draws.choice(kinds).variant(canvas), pose)
    return image


def street(canvas: Canvas) -> Tensor:
    """Buildings: tall boxes or towers with rows of windows, on the ground of a landscape."""
    draws = canvas.draws
    image = landscape(canvas)
    floor = draws.uniform(0.2, 1.0)
    for _ in range(draws.integer(1, 5)):
        thing = Thing.drawn(canvas)
        wall = replace(
            thing.materials[0], patterns=(bricks, thing.materials[0].patterns[1]), sizes=(draws.uniform(0.1, 0.35), 0.1)
        )
        building = replace(thing, shape=draws.choice((assembly, assembly, lathe))(draws), materials=(wall, wall), features=())
        size = draws.uniform(0.4, 1.2)
        pose = Pose(draws.uniform(-1, 1), floor - size * 0.7, size, haze=draws.uniform(0, 0.4), shadow=0.3)
        image = draw(canvas, image, building, pose)
    return image


def thicket(canvas: Canvas) -> Tensor:
    """Long thin things: grass, twigs, wires, bars, at random with a thing behind or before them."""
    draws = canvas.draws
    image = _backdrop(canvas)
    for _ in range(draws.integer(1, 3)):
        layer = replace(Thing.drawn(canvas), shape=strands(draws), features=())
        image = draw(canvas, image, layer, Pose(0, 0, max(canvas.reach), draws.uniform(-0.2, 0.2)))
    if draws.chance(0.6):
        image = draw(canvas, image, Thing.drawn(canvas), _pose(canvas, draws.uniform(0.3, 0.8), 0.5))
    return image


def lights(canvas: Canvas) -> Tensor:
    """Bright spots in the dark: lamps, fire, stars, glowing water."""
    draws, palette = canvas.draws, canvas.palette
    x, y = canvas.grid
    image = draws.choice((studio, landscape, interior))(canvas) * draws.uniform(0.05, 0.5)
    glow = palette.natural(draws.choice(("warm", "warm", "white", "sky", "vivid")))
    for _ in range(draws.choice((1, 1, 2, 5, 12))):
        radius = draws.log_uniform(0.03, 0.4)
        right, down = (x - draws.uniform(-0.9, 0.9)) / draws.uniform(0.4, 1.0), y - draws.uniform(-0.9, 0.9)
        right = right + 0.3 * radius * canvas.noise(x, y, 2.0, 3)
        near = (right * right + down * down).sqrt() / radius
        image = image + palette.variant(glow, 0.15) * (smoothstep(1.5 - near) + 0.4 * torch.exp(-near))
    if draws.chance(0.6):
        image = draw(canvas, image, Thing.drawn(canvas), _pose(canvas, draws.uniform(0.3, 0.9), 0.6))
    return image


def _backdrop(canvas: Canvas) -> Tensor:
    """Return a backdrop, at random out of focus."""
    draws = canvas.draws
    image = draws.weighted(BACKDROPS)(canvas)
    if draws.chance(0.5):
        image = blurred(image, min(canvas.height, canvas.width) * draws.log_uniform(0.005, 0.05))
    return image


def _pose(canvas: Canvas, size: float, spread: float, upright: bool | None = None) -> Pose:
    """Return a pose up to `spread` from the center; upright or in any direction."""
    draws = canvas.draws
    right, low = canvas.reach
    upright = draws.chance(0.75) if upright is None else upright
    return Pose(
        x=draws.uniform(-spread, spread) * right,
        y=draws.uniform(-spread, spread) * low,
        size=size,
        angle=draws.uniform(-0.25, 0.25) if upright else draws.uniform(-math.pi, math.pi),
        flipped=draws.chance(0.5),
        softness=draws.choice((0.0, 0.0, 0.03)) * draws.uniform(),
        shadow=draws.uniform(0, 0.7),
    )


COMPOSITIONS: dict[Callable[[Canvas], Tensor], float] = {  # composition -> its share
    portrait: 0.45,
    pair: 0.10,
    view: 0.08,
    group: 0.07,
    clutter: 0.05,
    street: 0.05,
    heap: 0.05,
    thicket: 0.04,
    lights: 0.04,
    close_up: 0.03,
    rows: 0.02,
    fractal: 0.02,
}
