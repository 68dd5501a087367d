"""Random views of images."""

import torch

from vitdfq.calibration.augment import augment


def test_views_have_the_shape_and_range_of_the_images_and_depend_on_the_generator():
    images = torch.rand(6, 3, 20, 28, generator=torch.Generator().manual_seed(0))
    views, again, others = (augment(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert views.shape == images.shape
    assert torch.equal(views, again) and not torch.equal(views, others)
    assert views.min() >= images.min() - 1e-5 and views.max() <= images.max() + 1e-5


def test_colors_are_permuted_not_mixed():
    flat = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(16, 3, 8, 8)
    views = augment(flat, torch.Generator().manual_seed(0))
    torch.testing.assert_close(views.amax((2, 3)).sort(1).values, torch.tensor([[1.0, 2.0, 3.0]]).expand(16, 3))
    assert not torch.allclose(views, flat)


def test_crops_lie_inside_the_image():
    """A crop of a ramp is a ramp; a repeated border would have a step of zero."""
    ramp = torch.linspace(0, 1, 64).expand(32, 3, 64, 64)
    steps = augment(ramp, torch.Generator().manual_seed(0)).diff(dim=-1)[..., 1:-1].abs()
    assert steps.amin() > 0.5 * 0.4 / 64
