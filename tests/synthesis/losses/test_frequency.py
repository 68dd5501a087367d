"""Band-pass filters, the passes of each step, and values of the FDD loss."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from contexts import make_context
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_tiny

from vitdfq.synthesis import METHODS, TeacherFacts
from vitdfq.synthesis.losses.frequency_consistency import RADII, band_pass, filtered_passes, frequency_consistency, round_of
from vitdfq.synthesis.objective.networks import Networks


def facts_of(size):
    return TeacherFacts(size, 10, [], torch.tensor([-2.0, -1.0, 0.0]).view(1, 3, 1, 1), torch.full((1, 3, 1, 1), 2.0))


def wave(size, cycles_down, cycles_right):
    """(1, 3, H, W): pixel values 0.5 + 0.4 cos, normalized as by `facts_of`."""
    height, width = size
    phase = cycles_down * torch.arange(height)[:, None] / height + cycles_right * torch.arange(width) / width
    pixels = (0.5 + 0.4 * torch.cos(2 * torch.pi * phase)).expand(1, 3, height, width)
    facts = facts_of(size)
    return facts.low + pixels * (facts.high - facts.low)


@pytest.mark.parametrize("size", [(32, 32), (33, 32), (24, 48)])
def test_a_band_of_all_frequencies_changes_nothing(size):
    images = wave(size, 2, 3)
    torch.testing.assert_close(band_pass(images, facts_of(size), 0.0, 2.0), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (32, 64)])
@pytest.mark.parametrize(("down", "right"), [(0.25, 0.0), (0.0, 0.25), (0.125, 0.125)])
def test_a_low_pass_keeps_waves_within_its_radius_and_removes_others(size, down, right):
    """Radii are shares of the highest frequency, whatever the size: 32 pixels hold at most 16 cycles."""
    images, facts = wave(size, down * size[0] / 2, right * size[1] / 2), facts_of(size)
    radius = (down**2 + right**2) ** 0.5
    torch.testing.assert_close(band_pass(images, facts, 0.0, radius + 0.01), images, rtol=0, atol=1e-5)
    gray = (facts.low + facts.high) / 2
    torch.testing.assert_close(band_pass(images, facts, 0.0, radius - 0.01), gray.expand_as(images), rtol=0, atol=1e-5)


def test_a_band_without_the_mean_has_magnitudes_above_black():
    images, facts = wave((32, 32), 0, 4), facts_of((32, 32))
    pixels = (band_pass(images, facts, 0.1, 0.4) - facts.low) / (facts.high - facts.low)
    expected = (0.4 * torch.cos(2 * torch.pi * 4 * torch.arange(32) / 32)).abs().expand_as(pixels)
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-5)


def test_images_are_filtered_one_by_one():
    images, facts = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)), facts_of((32, 32))
    torch.testing.assert_close(band_pass(images, facts, 0.1, 0.4)[1:2], band_pass(images[1:2], facts, 0.1, 0.4))


def test_rounds_of_the_published_run():
    """1000 steps: 200 a round, 100 a half."""
    assert [round_of(step, 1000) for step in (0, 99, 100, 199, 200, 999)] == [
        (0, False), (0, False), (0, True), (0, True), (1, False), (4, True)
    ]  # fmt: skip
    assert METHODS["fdd"].schedule.rolls == tuple(int(112 * 0.3 * index / 5) for index in range(5))


@given(steps=st.integers(1, 300))
def test_rounds_follow_each_other_and_halves_alternate(steps):
    places = [round_of(step, steps) for step in range(steps)]
    assert places == sorted(places)  # rounds grow, and a first half comes before its second half
    assert places[0] == (0, False) and all(0 <= index < len(RADII) for index, _ in places)
    if steps >= 10:
        assert set(places) == {(index, half) for index in range(len(RADII)) for half in (False, True)}


@pytest.mark.parametrize(("step", "runs"), [(0, [(0.0, 0.2)]), (10, [(0.0, 0.2), (0.1, 0.4)]), (99, [(0.0, 0.6), (0.0, 1.0)])])
def test_filtered_passes_by_step(step, runs):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    teacher = make_tiny("vit")
    facts = TeacherFacts.of(teacher)
    ctx = SimpleNamespace(images=images, facts=facts, step=step, steps=100)
    with Networks(teacher, []) as networks:
        passes = filtered_passes(ctx, networks)
    assert len(passes) == len(runs)
    for result, (inner, outer) in zip(passes, runs, strict=True):
        torch.testing.assert_close(result.images, band_pass(images, facts, inner, outer))
    assert [result.logits.requires_grad for result in passes] == ([True] if len(runs) == 1 else [False, True])


def test_values_by_hand():
    ctx, _ = make_context(make_tiny("vit"), torch.zeros(1, 3, 32, 32), {"class_confidence": {}})
    ctx = replace(ctx, targets=torch.tensor([[1.0, 0.0]]))
    low, high = (SimpleNamespace(logits=torch.tensor([[p, 1 - p]]).log()) for p in (0.8, 0.5))
    first, second = (
        frequency_consistency(replace(ctx, passes={"frequency_consistency": passes})) for passes in ([low], [low, high])
    )
    assert first.item() == pytest.approx(0.223144, rel=1e-4)  # -ln .8
    assert second.item() == pytest.approx(0.5 * 0.693147 + 0.5 * (0.8 * 0.470004 - 0.2 * 0.916291), rel=1e-4)
