"""Contracts that every observer in OBSERVERS keeps, by name; a new one enrols itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitdfq.quantization import observers
from vitdfq.quantization.functional import choose_qparams
from vitdfq.quantization.observers import OBSERVERS, percentiles_of_tensor, shrink_and_shift

NAMES = sorted(OBSERVERS)
TARGETS = ["rows", "gram", "tensor"]


def proposed(name, target, rows, bits, symmetric):
    return getattr(OBSERVERS[name], target)(rows, bits, symmetric)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", TARGETS)
@given(st.integers(0, 2**31), st.integers(2, 8), st.booleans())
@settings(deadline=None, max_examples=5)
def test_grids_are_grids_and_the_last_one_is_min_max(name, target, seed, bits, symmetric):
    rows = torch.randn(5, 300, generator=torch.Generator().manual_seed(seed)) + torch.tensor([-9.0, -1, 0, 1, 9])[:, None]
    scales, zero_points = proposed(name, target, rows, bits, symmetric)
    assert scales.shape == zero_points.shape and len(scales) == 5
    assert (scales > 0).all() and scales.isfinite().all()
    assert torch.equal(zero_points, zero_points.round())
    assert zero_points.min() >= 0 and zero_points.max() <= 2**bits - 1
    min_max = choose_qparams(rows.amin(1, True), rows.amax(1, True), bits, symmetric)
    torch.testing.assert_close(scales[:, -1:], min_max[0])
    assert torch.equal(zero_points[:, -1:], min_max[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", TARGETS)
def test_rows_are_independent(name, target):
    rows = torch.randn(4, 200, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 4)[:, None]
    together = proposed(name, target, rows, 4, False)
    for row in range(4):
        alone = proposed(name, target, rows[row : row + 1], 4, False)
        assert torch.equal(alone[0][0], together[0][row]) and torch.equal(alone[1][0], together[1][row])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("constant", [0.0, 0.3, -2.0, 1e-30])
def test_constants_give_finite_grids(name, target, constant):
    scales, zero_points = proposed(name, target, torch.full((2, 50), constant), 4, False)
    assert (scales > 0).all() and scales.isfinite().all() and zero_points.isfinite().all()


def test_percentile_clips_an_outlier():
    x = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 1000.0
    scales, _ = percentiles_of_tensor(x, 4, False)
    assert (scales[0, :3] < 1).all() and scales[0, 3] > 60


def test_percentiles_of_more_values_than_quantile_takes(monkeypatch):
    channels = 64  # a stride through the values must not see one channel only
    x = torch.randn(256, channels, generator=torch.Generator().manual_seed(0)) * torch.arange(1, channels + 1)
    exact = percentiles_of_tensor(x.view(1, -1), 4, False)[0]
    monkeypatch.setattr(observers, "SAMPLE", x.numel() // channels * 8)
    sampled = percentiles_of_tensor(x.view(1, -1), 4, False)[0]
    torch.testing.assert_close(sampled[0, 0], exact[0, 0], rtol=0.1, atol=0)
    assert sampled[0, -1] == exact[0, -1]
    monkeypatch.undo()
    assert percentiles_of_tensor(torch.zeros(1, 2**24 + 2), 4, False)[0].isfinite().all()


def test_zero_points_are_tried_on_both_sides():
    rows = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))
    scales, zero_points = shrink_and_shift(rows, 4, False)
    middle = zero_points[:, -28:]
    assert scales.shape == (3, 84)
    assert torch.equal(zero_points[:, :28], middle - 1) and torch.equal(zero_points[:, 28:56], middle + 1)
    assert shrink_and_shift(rows, 4, True)[0].shape == (3, 28)
