"""Procedural images."""

import pytest
import torch
from tiny import make_tiny

from vitdfq.models import image_range
from vitdfq.synthesis import synthesize
from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.procedural import PROCEDURAL, colored_noise, render_dead_leaves
from vitdfq.synthesis.seeds import generator


@pytest.mark.parametrize("start", sorted(PROCEDURAL))
def test_images_depend_on_index_and_seed_within_the_teachers_range(start):
    teacher = make_tiny("vit")
    facts = TeacherFacts.of(teacher)
    low, high = image_range(teacher)
    first, again, second, other_seed = (PROCEDURAL[start](index, seed, facts) for index, seed in ((0, 0), (0, 0), (1, 0), (0, 1)))
    assert first.shape == (3, 32, 32) and first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, second) and not torch.equal(first, other_seed)
    assert ((first >= low[0] - 1e-5) & (first <= high[0] + 1e-5)).all()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 48), (17, 31)])
def test_dead_leaves_of_any_size(height, width):
    assert render_dead_leaves(generator(0, "test"), height, width).shape == (3, height, width)


def test_colored_noise_has_less_power_at_high_frequencies():
    field = colored_noise(generator(0, "test"), 64, 64, 1.5)
    power = torch.fft.rfft2(field).abs().square().mean(0)
    assert power[1:4, 1:4].mean() > 100 * power[20:30, 20:30].mean()
    torch.testing.assert_close(field.std(), torch.tensor(1.0), rtol=1e-3, atol=1e-3)


def test_dead_leaves_have_edges_and_areas_as_photographs_do():
    """Differences of neighboring pixels are mostly tiny and sometimes large: a far heavier tail than that of colored noise."""
    images = torch.stack([render_dead_leaves(generator(index, "test"), 96, 96) for index in range(8)])
    steps = images.diff(dim=-1)
    kurtosis = (steps**4).mean() / steps.square().mean() ** 2
    assert kurtosis > 10


def test_a_method_can_start_from_dead_leaves():
    teacher = make_tiny("vit")
    kwargs = {"num_images": 2, "steps": 2, "lr": 1e-6}
    leaves = synthesize(teacher, method="dead_leaves", num_images=2)
    torch.testing.assert_close(synthesize(teacher, method="psaq", start="dead_leaves", **kwargs), leaves, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="unknown start 'dead_leafs', did you mean 'dead_leaves'"):
        synthesize(teacher, start="dead_leafs")
