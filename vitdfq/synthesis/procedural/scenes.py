"""Scenes: objects in front of a backdrop, lit and photographed; procedural images with the variety of photographs."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.procedural.backdrops import BACKDROPS, fractal, landscape, surface
from vitdfq.synthesis.procedural.canvas import Canvas, Draws, blurred
from vitdfq.synthesis.procedural.objects import Pose, Thing, draw
from vitdfq.synthesis.procedural.palettes import Palette
from vitdfq.synthesis.procedural.photo import photograph
from vitdfq.synthesis.seeds import generator


def scenes(index: int, seed: int, facts: TeacherFacts) -> Tensor:
    """Return a scene: things of random shapes and materials before a landscape, an interior, a blur. (3, H, W)

    The parts are rendered from formulas alone, without data or a model. They follow what photographs have in common: things of
    one outline with textures of their own, shading by one light, shadows, perspective, focus, and colors that are related.
    """
    rng = generator(seed, "scenes", index)
    low, high = facts.low[0].cpu(), facts.high[0].cpu()
    return (low + render_scene(rng, *facts.image_size) * (high - low)).clamp(low, high)


def render_scene(rng: torch.Generator, height: int, width: int) -> Tensor:
    """Return one scene (3, height, width), values in [0, 1]."""
    draws = Draws(rng)
    angle, slope = draws.uniform(0, 2 * math.pi), draws.uniform(0.4, 1.3)
    light = (math.cos(angle) * math.cos(slope), -abs(math.sin(angle)) * math.cos(slope), math.sin(slope))  # from above
    canvas = Canvas(draws, height, width, Palette.drawn(draws.uniform), light)
    composition = draws.weighted(COMPOSITIONS)
    return photograph(canvas, composition(canvas))


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
    portrait: 0.42,
    view: 0.14,
    close_up: 0.10,
    group: 0.10,
    pair: 0.10,
    clutter: 0.06,
    rows: 0.05,
    fractal: 0.03,
}
