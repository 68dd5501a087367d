"""Timings and memory of short runs."""

import torch
from tiny import make_tiny

from vitdfq.cost import timing


def test_repeated_calls_use_the_threads_of_the_caller(monkeypatch):
    """torch's Timer uses one thread by default."""
    monkeypatch.setattr(timing, "TIMER_SECONDS", 0.01)
    before, threads = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        assert timing.median_seconds(lambda: threads.append(torch.get_num_threads())) > 0
    finally:
        torch.set_num_threads(before)
    assert len(threads) > 1 and set(threads) == {2}


def test_the_largest_output_is_that_of_one_image():
    """MLP of 4 x 32 channels on 17 tokens; attention maps of 2 heads are smaller."""
    assert timing.largest_output(make_tiny("vit")) == 17 * 128
