"""Regions, their sub-crops, and the enlargement of a crop."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from vitdfq.synthesis.objective.regions import LAYOUTS, MAX_REGIONS, MIN_SIDE, crop_and_resize, draw_regions, sub_crops
from vitdfq.synthesis.seeds import generator

SIDES = st.integers(MIN_SIDE, 300)


def coverage(boxes, size):
    """Return the number of boxes over each pixel; fails if a box is empty or leaves the image."""
    counts = torch.zeros(size, dtype=torch.long)
    for top, left, height, width in boxes.tolist():
        assert height >= 1 and width >= 1 and top >= 0 and left >= 0
        assert top + height <= size[0] and left + width <= size[1]
        counts[top : top + height, left : left + width] += 1
    return counts


@settings(max_examples=150, deadline=None)
@given(st.integers(2, MAX_REGIONS), SIDES, SIDES, st.integers(0, 2**31))
def test_regions_do_not_overlap(count, height, width, seed):
    regions = draw_regions(generator(seed), count, (height, width))
    assert regions.shape == (count, 4)
    assert coverage(regions, (height, width)).max() == 1


@settings(max_examples=150, deadline=None)
@given(st.integers(2, MAX_REGIONS), SIDES, SIDES, st.integers(0, 2**31))
def test_sub_crops_lie_in_their_regions(count, height, width, seed):
    rng, size = generator(seed), (height, width)
    regions = draw_regions(rng, count, size)
    boxes = sub_crops(regions, torch.rand(count, 4, generator=rng), size)
    for region, box in zip(regions, boxes, strict=True):
        covered = coverage(region[None], size) + coverage(box[None], size)
        assert (covered == 2).sum() == box[2] * box[3]


@pytest.mark.parametrize("count", LAYOUTS)
def test_sizes_at_224_are_the_published_ones(count):
    drawn = torch.stack([draw_regions(generator(seed), count, (224, 224)) for seed in range(400)])
    heights = {2: (100, 199), 3: (100, 199), 4: (100, 111)}[count]
    widths = {2: (100, 111), 3: (70, 73), 4: (100, 111)}[count]
    assert (drawn[..., 2].min().item(), drawn[..., 2].max().item()) == heights
    assert (drawn[..., 3].min().item(), drawn[..., 3].max().item()) == widths


def test_sub_crops_at_224_are_the_published_ones():
    regions = torch.tensor([[10, 20, 112, 35]]).expand(2000, 4)
    boxes = sub_crops(regions, torch.rand(2000, 4, generator=generator(0)), (224, 224))
    assert (boxes[:, 2].min().item(), boxes[:, 2].max().item()) == (82, 110)
    assert (boxes[:, 3].min().item(), boxes[:, 3].max().item()) == (10, 33)
    assert boxes[:, 0].min() == 10 and boxes[:, 1].min() == 20


def test_a_single_region_is_the_whole_image():
    assert draw_regions(generator(0), 1, (224, 224)).shape == (0, 4)


def test_too_small_images_are_refused():
    with pytest.raises(ValueError, match="max_regions to 1"):
        draw_regions(generator(0), 3, (2, 224))


BOXES = torch.tensor([[0, 0, 12, 13], [5, 7, 10, 9], [18, 1, 10, 22], [27, 22, 1, 1], [0, 0, 28, 23]])


@pytest.mark.parametrize("scale", [1, 8])
def test_crop_and_resize_equals_interpolate(scale):
    boxes, size = BOXES * scale, (28 * scale, 23 * scale)
    images = torch.randn(len(boxes), 3, *size, generator=generator(0))
    for image, (top, left, height, width), enlarged in zip(images, boxes.tolist(), crop_and_resize(images, boxes), strict=True):
        crop = image[None, :, top : top + height, left : left + width]
        expected = interpolate(crop, size, mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(enlarged, expected, rtol=0, atol=2e-4)


def test_gradient_is_exactly_zero_outside_the_box():
    regions = torch.cat([draw_regions(generator(seed), 4, (224, 224)) for seed in range(5)])
    boxes = sub_crops(regions, torch.rand(20, 4, generator=generator(9)), (224, 224))
    images = torch.randn(20, 3, 224, 224, generator=generator(0)).requires_grad_()
    crop_and_resize(images, boxes).square().sum().backward()
    for grad, box in zip(images.grad, boxes, strict=True):
        inside = coverage(box[None], (224, 224)).bool()
        assert (grad[:, ~inside] == 0).all()
        assert (grad[:, inside] != 0).all()
