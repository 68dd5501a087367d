"""Calibration images that people pass: a right result or one line."""

import pytest
import timm
import torch

from vitdfq.models import checked_images, image_range, load_teacher

DYNAMIC = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2, "dynamic_img_size": True}


def normalized(model, pixels):
    low, high = image_range(model)
    return low + pixels * (high - low)


def test_normalized_images_and_noise_pass_as_they_are(teacher, images):
    pixels = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    for given in (normalized(teacher, pixels), images, torch.zeros_like(images)):
        assert torch.equal(checked_images(teacher, given), given)


def test_half_precision_and_gradients_are_removed(tiny_vit, images):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        checked = checked_images(tiny_vit, images.to(dtype).requires_grad_())
        assert checked.dtype == torch.float32 and not checked.requires_grad
        assert torch.equal(checked, images.to(dtype).float())
    assert checked_images(tiny_vit.double(), images).dtype == torch.float64


def test_images_of_inference_mode_are_copied(tiny_vit, images):
    with torch.inference_mode():
        given = images.clone()
    assert given.is_inference() and not checked_images(tiny_vit, given).is_inference()


REFUSED = {
    "0 to 255": (
        lambda model, pixels: 255 * pixels,
        r"have a range of 0\.0\d+ to 25\d.*: black is \(-1\.00, .*, white is \(1\.00",
    ),
    "0 to 255 in uint8": (lambda model, pixels: (255 * pixels).byte(), "images are torch.uint8, not float32: scale to 0..1"),
    "dark, 0 to 255": (lambda model, pixels: 25 * pixels, "so they are not normalized"),
    "0 to 1": (lambda model, pixels: pixels, "have a range of .*, so they are not normalized: .*mean and std"),
    "-255 to 0": (lambda model, pixels: -255 * pixels, "not normalized"),
    "NaN": (lambda model, pixels: torch.full_like(pixels, torch.nan), "NaN or infinite"),
    "none": (lambda model, pixels: pixels[:0], r"N > 0, not \(0, 3, 32, 32\)"),
    "one image": (lambda model, pixels: pixels[0], r"not \(3, 32, 32\): one image is images\[None\]"),
    "channels last": (lambda model, pixels: pixels.permute(0, 2, 3, 1), r"channels come second, images.permute\(0, 3, 1, 2\)"),
    "gray": (lambda model, pixels: pixels[:, :1], "repeat the gray channel"),
    "another size": (
        lambda model, pixels: normalized(model, pixels)[..., :24, :24],
        "images are 24x24, the model takes 32x32: resize",
    ),
    "on the meta device": (lambda model, pixels: pixels.to("meta"), "images are on the meta device; expected a dense tensor"),
    "sparse": (lambda model, pixels: pixels.to_sparse(), "images are torch.sparse_coo; expected a dense tensor"),
    "a list": (lambda model, pixels: list(pixels), "images are a list; expected a tensor"),
    "an array": (lambda model, pixels: pixels.numpy(), "images are a ndarray; expected a tensor"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(tiny_vit, kind):
    make, message = REFUSED[kind]
    pixels = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=message) as caught:
        checked_images(tiny_vit, make(tiny_vit, pixels))
    assert "\n" not in str(caught.value)


def test_pixels_from_0_to_1_are_normalized_where_the_mean_is_0():
    module = timm.create_model("vit_tiny_patch16_224", num_classes=5, **DYNAMIC)
    module.pretrained_cfg |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    pixels = torch.rand(4, 3, 32, 32)
    assert torch.equal(checked_images(load_teacher(module), pixels), pixels)


def test_another_size_is_taken_by_a_model_that_takes_it():
    model = load_teacher(timm.create_model("vit_tiny_patch16_224", num_classes=5, **DYNAMIC))
    images = torch.zeros(1, 3, 48, 40)
    assert checked_images(model, images).shape == images.shape
