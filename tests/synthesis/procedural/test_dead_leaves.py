"""Dead leaves."""

import pytest
import torch

from vitdfq.synthesis.procedural.dead_leaves import render_dead_leaves
from vitdfq.synthesis.seeds import generator


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 48), (17, 31)])
def test_dead_leaves_of_any_size(height, width):
    assert render_dead_leaves(generator(0, "test"), height, width).shape == (3, height, width)


def test_dead_leaves_have_edges_and_areas_as_photographs_do():
    """Differences of neighboring pixels are mostly tiny and sometimes large: a far heavier tail than that of colored noise."""
    images = torch.stack([render_dead_leaves(generator(index, "test"), 96, 96) for index in range(8)])
    steps = images.diff(dim=-1)
    kurtosis = (steps**4).mean() / steps.square().mean() ** 2
    assert kurtosis > 10
