"""What the parts of a scene share: random draws, coordinates, noise, a palette and a light."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample, pad

from vitdfq.synthesis.procedural.palettes import Palette

T = TypeVar("T")

POOL = 256  # numbers drawn at a time
EXPONENTS = (0.7, 1.0, 1.3, 1.7, 2.2)  # amplitudes fall as frequency^-exponent: from grainy to cloudy
SMALLEST_BANK, LARGEST_BANK = 64, 512  # pixels of a noise field


class Draws:
    """Random numbers of one image, by the shape of their distribution."""

    def __init__(self, rng: torch.Generator) -> None:
        self.rng = rng
        self._pool: list[float] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number between `low` and `high`."""
        if not self._pool:
            self._pool = torch.rand(POOL, generator=self.rng).tolist()
        return low + (high - low) * self._pool.pop()

    def log_uniform(self, low: float, high: float) -> float:
        """Return a number whose logarithm is uniform: no scale is preferred."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def integer(self, low: int, high: int) -> int:
        """Return one of low, ..., high."""
        return low + int(self.uniform(0, high - low + 1))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.uniform() < probability

    def sign(self) -> int:
        """Return -1 or 1."""
        return 1 if self.chance(0.5) else -1

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options, all equally likely."""
        return options[int(self.uniform(0, len(options)))]

    def weighted(self, weights: Mapping[T, float]) -> T:
        """Return a key; its weight is its share."""
        left = self.uniform(0, sum(weights.values()))
        for option, weight in weights.items():
            left -= weight
            if left < 0:
                return option
        return next(iter(weights))

    def normal(self, *shape: int) -> Tensor:
        """Return numbers of a normal distribution, in this shape."""
        return torch.randn(*shape, generator=self.rng)

    def rand(self, *shape: int) -> Tensor:
        """Return numbers between 0 and 1, in this shape."""
        return torch.rand(*shape, generator=self.rng)


@dataclass(frozen=True)
class Canvas:
    """One image to be drawn.

    Coordinates: x to the right, y down, (0, 0) in the center; the shorter side runs from -1 to 1. All lengths are in this unit,
    so that a scene looks alike at any size.
    """

    draws: Draws
    height: int
    width: int
    palette: Palette
    light: tuple[float, float, float]  # the direction to the light, of length 1: right, down, to the viewer

    @property
    def pixel(self) -> float:
        """The size of a pixel."""
        return 2 / min(self.height, self.width)

    @cached_property
    def grid(self) -> tuple[Tensor, Tensor]:
        """The coordinates x and y of all pixels. (H, W) each."""
        down = (torch.arange(self.height) + 0.5 - self.height / 2) * self.pixel
        right = (torch.arange(self.width) + 0.5 - self.width / 2) * self.pixel
        y, x = torch.meshgrid(down, right, indexing="ij")
        return x, y

    @property
    def reach(self) -> tuple[float, float]:
        """The largest x and y."""
        return self.width * self.pixel / 2, self.height * self.pixel / 2

    @cached_property
    def _bank(self) -> Tensor:
        """Periodic noise fields of unit deviation, one for each exponent, with one repeated row and column. (K, S + 1, S + 1)"""
        side = max(SMALLEST_BANK, min(LARGEST_BANK, max(self.height, self.width)))
        down, right = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)
        frequency = (down**2 + right**2).sqrt().clamp(min=1 / side)
        falls = frequency ** -torch.tensor(EXPONENTS)[:, None, None]
        falls[:, 0, 0] = 0
        white = self.draws.normal(len(EXPONENTS), side, side)
        fields = torch.fft.irfft2(torch.fft.rfft2(white) * falls, s=(side, side))
        fields = fields / fields.std((1, 2), keepdim=True)
        return pad(fields[None], (0, 1, 0, 1), mode="circular")[0]

    def noise(self, x: Tensor, y: Tensor, period: float = 2.0, exponent: int | None = None) -> Tensor:
        """Return noise of unit deviation at x, y (H, W), repeated after `period`; `exponent` is an index of EXPONENTS.

        Every call starts at another place of the field.
        """
        kind = self.draws.integer(0, len(EXPONENTS) - 1) if exponent is None else exponent
        u = x / period + self.draws.uniform()
        v = y / period + self.draws.uniform()
        places = torch.stack((u - u.floor(), v - v.floor()), -1) * 2 - 1
        return grid_sample(self._bank[kind][None, None], places[None], align_corners=True)[0, 0]


def rotated(x: Tensor, y: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Return the coordinates along and across a direction."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return x * cosine + y * sine, y * cosine - x * sine


def smoothstep(value: Tensor) -> Tensor:
    """Return 0 below 0, 1 above 1, and a smooth step between them."""
    value = value.clamp(0, 1)
    return value * value * (3 - 2 * value)


def lerp(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Return (1 - share) first + share second: colors (3, 1, 1) or images, mixed by a field (H, W)."""
    return first + (second - first) * share


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Return an image (C, H, W) after a Gaussian blur of `sigma` pixels; edges are repeated."""
    if sigma < 0.2:
        return image
    radius = math.ceil(2.5 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    planes = pad(image[:, None], (radius, radius, radius, radius), mode="replicate")
    return conv2d(conv2d(planes, kernel[:, :, None]), kernel[..., None])[:, 0]
