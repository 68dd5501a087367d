"""Timings and memory of short runs."""

import pytest
from tiny import make_tiny

from vitdfq.cost import timing


def test_the_median_leaves_out_the_first_call(monkeypatch):
    calls, seconds = [], iter([1.0, 9.0, 2.0])

    def timed(run):
        run()
        return next(seconds)

    monkeypatch.setattr(timing, "timed", timed)
    assert timing.median_seconds(lambda: calls.append(1)) == 2.0
    assert len(calls) == 1 + 3


def test_one_call_is_timed_once():
    calls = []
    assert timing.timed(lambda: calls.append(1)) > 0
    assert len(calls) == 1


@pytest.mark.parametrize(("kind", "values"), [("vit", 17 * 128), ("swin", 64 * 4 * 16 * 4)])
def test_the_largest_output_is_that_of_one_image(kind, values):
    """ViT: the MLP, 4 x 32 channels on 17 tokens. Swin: the MLP of the first stage, 4 x 16 channels on 256 tokens."""
    assert timing.largest_output(make_tiny(kind)) == values
