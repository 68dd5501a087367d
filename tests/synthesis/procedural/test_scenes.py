"""Scenes."""

import pytest
import torch

from vitdfq.synthesis.procedural.canvas import Canvas, Draws
from vitdfq.synthesis.procedural.compositions import COMPOSITIONS
from vitdfq.synthesis.procedural.dead_leaves import render_dead_leaves
from vitdfq.synthesis.procedural.palettes import Palette
from vitdfq.synthesis.procedural.scenes import render_scene
from vitdfq.synthesis.seeds import generator


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 48), (31, 17), (28, 28)])
def test_scenes_of_any_size(height, width):
    for index in range(12):
        image = render_scene(generator(index, "test"), height, width)
        assert image.shape == (3, height, width)
        assert ((image >= 0) & (image <= 1)).all(), index
        assert image.std() > 0.01, index


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_every_composition_fills_the_image(composition):
    for index in range(4):
        draws = Draws(generator(index, "test"))
        canvas = Canvas(draws, 40, 56, Palette.drawn(draws.uniform), (0.0, -0.6, 0.8))
        image = composition(canvas)
        assert image.shape == (3, 40, 56) and image.isfinite().all()


def test_colors_of_scenes_are_less_saturated_than_those_of_dead_leaves():
    """Most of a photograph is not vivid: saturation is the spread of the channels at a pixel."""
    images = torch.stack([render_scene(generator(index, "test"), 48, 48) for index in range(32)])
    leaves = torch.stack([render_dead_leaves(generator(index, "test"), 48, 48) for index in range(32)])
    assert (images.amax(1) - images.amin(1)).mean() < 0.75 * (leaves.amax(1) - leaves.amin(1)).mean()
