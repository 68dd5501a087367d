"""What a student in turn with the generator is shown."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from vitdfq.synthesis.lessons import interpolated


@given(st.integers(1, 9), st.floats(0, 1), st.integers(0, 1000))
def test_mixtures_lie_between_two_images(count, share, seed):
    images = torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    mixed = interpolated(images, share, torch.Generator().manual_seed(seed + 1))
    for one in mixed:
        gaps = [
            (torch.minimum(a, b) - one).clamp(min=0).amax() + (one - torch.maximum(a, b)).clamp(min=0).amax()
            for a in images
            for b in images
        ]
        assert min(gaps) < 1e-6


def test_a_share_of_the_images_is_mixed():
    images = torch.randn(2000, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    mixed = interpolated(images, 0.5, torch.Generator().manual_seed(1))
    changed = (mixed != images).flatten(1).any(1).float().mean().item()
    assert 0.45 < changed < 0.55
    assert torch.equal(interpolated(images, 0.0, torch.Generator().manual_seed(1)), images)
