"""Some of many values."""

import pytest
import torch

from vitdfq.quantization import sample
from vitdfq.quantization.sample import sampled, sampled_values


def test_few_are_returned_whole():
    x = torch.randn(7, 3)
    assert sampled(x, 7) is x
    assert torch.equal(sampled_values(x), x.flatten())


@pytest.mark.parametrize("dim", [0, 1])
def test_slices_of_many_are_the_same_for_every_tensor_of_a_size(dim):
    x = torch.arange(10_000.0).view(100, 100)
    kept = sampled(x, 20, dim)
    assert kept.shape[dim] == 20 and kept.shape[1 - dim] == 100
    torch.testing.assert_close(sampled(x + 1, 20, dim), kept + 1)


def test_no_place_of_a_window_is_left_out():
    """Swin's tokens come in windows of 49: every 49th is always the first of its window."""
    places = torch.arange(49).repeat(1000)
    assert len(sampled(places, 1000).unique()) == 49


def test_the_extremes_are_kept(monkeypatch):
    monkeypatch.setattr(sample, "VALUES", 10)
    x = torch.arange(1000.0).view(10, 100)
    values = sampled_values(x)
    assert len(values) == 12 and values.min() == 0 and values.max() == 999
