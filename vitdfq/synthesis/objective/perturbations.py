"""Small perturbations of images and weights to which semantic images should be robust (RIS-style)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitdfq.synthesis.objective.regions import crop_and_resize

NOISE = 0.2  # standard deviation, in normalized units
LARGEST_ROLL = 1 / 16  # of the side
SMALLEST_CROP = 0.8  # of the side
LARGEST_TONE = 0.2  # relative change of contrast, and change of brightness in normalized units
KERNELS = ((0.0, 0.25, 0.5, 0.25, 0.0), (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16))  # binomial, 3 and 5 pixels wide
POOL = 1_000_003  # normal numbers; a prime, so that no two rows of a weight get the same numbers


def flip(images: Tensor, uniform: Tensor) -> Tensor:
    """Flip horizontally."""
    return images.flip(3)


def roll(images: Tensor, uniform: Tensor) -> Tensor:
    """Shift both axes cyclically, each by at most a sixteenth of the side."""
    for axis in (2, 3):
        side = images.shape[axis]
        limit = max(1, int(LARGEST_ROLL * side))
        shift = (uniform[:, axis - 2] * (2 * limit + 1)).long() - limit
        source = (torch.arange(side, device=images.device) - shift[:, None]) % side  # (V, side)
        shape = (-1, 1, side, 1) if axis == 2 else (-1, 1, 1, side)
        images = images.gather(axis, source.view(shape).expand_as(images))
    return images


def crop(images: Tensor, uniform: Tensor) -> Tensor:
    """Enlarge a random part, .8 to 1 of each side, to the whole size."""
    sides = torch.tensor(images.shape[2:], device=images.device)
    length = (sides * (SMALLEST_CROP + (1 - SMALLEST_CROP) * uniform[:, :2])).round().long()
    start = (uniform[:, 2:4] * (sides - length + 1)).long()
    return crop_and_resize(images, torch.cat([start, length], dim=1))


def blur(images: Tensor, uniform: Tensor) -> Tensor:
    """Blur with a binomial kernel, 3 or 5 pixels wide."""
    kernels = torch.tensor(KERNELS, device=images.device, dtype=images.dtype)
    taps = kernels[(uniform[:, 0] * len(KERNELS)).long()].view(-1, 5, 1, 1, 1)
    height, width = images.shape[2:]
    padded = pad(images, (2, 2, 2, 2), mode="reflect")
    zero = torch.zeros(())
    rows = sum((taps[:, i] * padded[:, :, i : i + height] for i in range(5)), zero)
    return sum((taps[:, i] * rows[:, :, :, i : i + width] for i in range(5)), zero)


def tone(images: Tensor, uniform: Tensor) -> Tensor:
    """Change contrast by at most a fifth, and brightness by at most .2 in normalized units."""
    contrast, brightness = ((2 * uniform[:, i].view(-1, 1, 1, 1) - 1) * LARGEST_TONE for i in range(2))
    return images * (1 + contrast.to(images.dtype)) + brightness.to(images.dtype)


AUGMENTATIONS = (flip, roll, crop, blur, tone)  # f(images (V, 3, H, W), uniform (V, 4)) -> (V, 3, H, W)


def add_noise(images: Tensor, rngs: list[torch.Generator]) -> Tensor:
    """Add white noise to images (V, 3, H, W), each from its own stream of `rngs`."""
    noise = torch.stack([torch.randn(images.shape[1:], generator=rng) for rng in rngs])
    return images + NOISE * noise.to(images)


def augment(images: Tensor, rngs: list[torch.Generator]) -> Tensor:
    """Apply one of `AUGMENTATIONS` to each image (V, 3, H, W), chosen and drawn from its own stream of `rngs`."""
    uniform = torch.stack([torch.rand(5, generator=rng) for rng in rngs])
    chosen = (uniform[:, 0] * len(AUGMENTATIONS)).long()
    groups = [torch.nonzero(chosen == number)[:, 0] for number in range(len(AUGMENTATIONS))]
    order, device = torch.cat(groups).argsort().to(images.device), images.device
    parts = [
        augmentation(images[rows.to(device)], uniform[rows, 1:].to(device))
        for augmentation, rows in zip(AUGMENTATIONS, groups, strict=True)
        if len(rows)
    ]
    return torch.cat(parts)[order]


def perturbed_weights(model: Any, rng: torch.Generator, rel: float) -> dict[str, Tensor]:
    """Return noisy copies of the weights of all linear and convolutional layers but the classifier: name -> weight.

    The model is not changed. The noise of a weight tensor has `rel` times its standard deviation. Norms, biases, tokens,
    position embeddings and tables are left out. All weights take their noise from one pool of normal numbers, each from another
    offset: streams are drawn on the CPU, where a number for every weight of a ViT-B would cost more than the pass.
    """
    ends = model.get_classifier()
    heads = [part for end in (ends if isinstance(ends, tuple) else (ends,)) for part in end.modules()]
    layers = {
        name: part
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d) and not any(part is head for head in heads)
    }
    pool = torch.randn(POOL, generator=rng)
    offsets = torch.randint(POOL, (len(layers),), generator=rng).tolist()
    weights = {}
    for offset, (name, layer) in zip(offsets, layers.items(), strict=True):
        weight = layer.weight
        noise = pool.to(weight).roll(offset).repeat(-(-weight.numel() // POOL))[: weight.numel()]
        weights[f"{name}.weight"] = weight + rel * weight.std() * noise.view_as(weight)
    return weights
