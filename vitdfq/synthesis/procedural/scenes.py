"""Scenes: objects in front of a backdrop, lit and photographed; procedural images with the variety of photographs."""

import math

import torch
from torch import Tensor

from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.procedural.canvas import Canvas, Draws
from vitdfq.synthesis.procedural.compositions import COMPOSITIONS
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
