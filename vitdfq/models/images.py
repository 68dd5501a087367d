"""Calibration images as a model expects them; what they cannot be is refused in one line."""

import torch
from torch import Tensor, nn

from vitdfq.common.errors import one_line
from vitdfq.models.families import image_range, image_size
from vitdfq.models.storage import without_storage

MOST_OUTSIDE = 0.1  # of the pixels may be darker than black, or brighter than white, by more than the distance between the two
WIDE = 0.5  # pixels between 0 and 1 that differ by more are taken for an image that was not normalized


def checked_images(model: nn.Module, images: Tensor) -> Tensor:
    """Return images (N, 3, H, W) on the CPU, detached, in the model's float type.

    Half precision is converted. Pixels that are not normalized are recognized by their range: normalized ones lie between the
    model's black and white, or, as noise, near them.

    Raises:
        ValueError: not a tensor of floats, another shape, none, another size than the model takes, NaN or infinite values, pixels
            from 0 to 255 or from 0 to 1.
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"images are a {type(images).__name__}; expected a tensor (N, 3, H, W), normalized")
    low, high = (value.cpu().flatten() for value in image_range(model))
    how = f"normalize them with the model's mean and std: black is {_triple(low)}, white is {_triple(high)}"
    if images.is_meta or images.layout != torch.strided:
        raise ValueError(f"images are {'on the meta device' if images.is_meta else images.layout}; expected a dense tensor")
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}, not float32: scale to 0..1, then {how}")
    if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        raise ValueError(f"images must be (N, 3, H, W) with N > 0, not {tuple(images.shape)}{_shape_advice(images)}")
    _require_size(model, images)
    images = images.detach().to("cpu", next(model.parameters()).dtype)
    images = images.clone() if images.is_inference() else images  # it could never be part of a gradient
    if not images.isfinite().all():
        raise ValueError("images hold NaN or infinite values")
    darkest, brightest = images.aminmax()
    span = (high - low).view(1, 3, 1, 1)
    outside = (images < low.view(1, 3, 1, 1) - span) | (images > high.view(1, 3, 1, 1) + span)
    unscaled = outside.float().mean() > MOST_OUTSIDE
    unit = low.max() < 0 <= darkest and brightest <= 1 and brightest - darkest > WIDE
    if unscaled or unit:
        raise ValueError(f"images have a range of {darkest:g} to {brightest:g}, so they are not normalized: {how}")
    return images


def _require_size(model: nn.Module, images: Tensor) -> None:
    """Raise ValueError where the model does not run on images of this size."""
    height, width = image_size(model)
    if tuple(images.shape[2:]) == (height, width):
        return
    try:
        without_storage(model)(torch.zeros(1, *images.shape[1:], device="meta"))
    except Exception as error:  # timm raises several types for a size that does not fit
        size = "x".join(str(side) for side in images.shape[2:])
        raise ValueError(f"images are {size}, the model takes {height}x{width}: resize them ({one_line(error)})") from error


def _shape_advice(images: Tensor) -> str:
    if images.ndim == 3 and len(images) == 3:
        return ": one image is images[None]"
    if images.ndim == 4 and images.shape[3] == 3:
        return ": channels come second, images.permute(0, 3, 1, 2)"
    return ": repeat the gray channel, images.expand(-1, 3, -1, -1)" if images.ndim == 4 and images.shape[1] == 1 else ""


def _triple(values: Tensor) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in values.tolist()) + ")"
