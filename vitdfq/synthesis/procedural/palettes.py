"""Colors as in photographs: a few per image, related in hue, mostly of low saturation."""

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Hue, saturation and value of what photographs are full of: (lowest, highest) of each.
NATURAL: dict[str, tuple[tuple[float, float], ...]] = {
    "soil": ((0.03, 0.10), (0.2, 0.6), (0.2, 0.6)),
    "sand": ((0.07, 0.13), (0.15, 0.45), (0.5, 0.95)),
    "leaves": ((0.18, 0.36), (0.25, 0.8), (0.15, 0.65)),
    "sky": ((0.52, 0.62), (0.1, 0.7), (0.5, 1.0)),
    "water": ((0.45, 0.62), (0.2, 0.8), (0.15, 0.7)),
    "stone": ((0.0, 1.0), (0.0, 0.12), (0.15, 0.85)),
    "white": ((0.0, 1.0), (0.0, 0.08), (0.8, 1.0)),
    "black": ((0.0, 1.0), (0.0, 0.3), (0.02, 0.15)),
    "skin": ((0.02, 0.08), (0.25, 0.6), (0.4, 0.95)),
    "vivid": ((0.0, 1.0), (0.6, 1.0), (0.4, 1.0)),
    "warm": ((-0.03, 0.16), (0.6, 1.0), (0.5, 1.0)),
}
# Hues of whole images: the share of palettes up to here, and (lowest, highest). Half are brown to yellow, few are purple.
HUES = ((0.5, (0.0, 0.14)), (0.7, (0.2, 0.4)), (0.9, (0.52, 0.66)), (1.0, (0.0, 1.0)))
COMMON = ("soil", "sand", "leaves", "sky", "water", "stone", "white", "black", "skin")


def _rgb(hue: float, saturation: float, value: float) -> Tensor:
    """Return a color (3, 1, 1)."""
    return torch.tensor(colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1)))[:, None, None]


@dataclass(frozen=True)
class Palette:
    """The colors of one image."""

    uniform: Callable[[float, float], float]
    hue: float  # most of the image's colors lie near it or opposite
    spread: float
    saturation: float  # factor

    @staticmethod
    def drawn(uniform: Callable[[float, float], float]) -> "Palette":
        """Return a random palette."""
        kind = uniform(0, 1)
        bounds = next(bounds for share, bounds in HUES if kind <= share)
        return Palette(uniform, uniform(*bounds), uniform(0.02, 0.15), uniform(0.3, 1.1))

    def natural(self, name: str) -> Tensor:
        """Return a color (3, 1, 1) of a thing in `NATURAL`."""
        hue, saturation, value = (self.uniform(*bounds) for bounds in NATURAL[name])
        return _rgb(hue, saturation * min(1.0, 0.5 + self.saturation / 2), value)

    def related(self) -> Tensor:
        """Return a color (3, 1, 1) near the palette's hue or opposite to it."""
        opposite = 0.5 if self.uniform(0, 1) < 0.25 else 0.0
        hue = self.hue + opposite + self.spread * math.tan(self.uniform(-1.1, 1.1)) / 2
        return _rgb(hue, self.saturation * self.uniform(0, 1) ** 1.5, self.uniform(0.05, 1.0))

    def color(self) -> Tensor:
        """Return a color (3, 1, 1) of any thing."""
        kind = self.uniform(0, 1)
        if kind < 0.45:
            return self.related()
        if kind < 0.88:
            return self.natural(COMMON[int(self.uniform(0, len(COMMON)))])
        return self.natural("warm" if kind < 0.95 else "vivid")

    def variant(self, color: Tensor, amount: float = 0.15) -> Tensor:
        """Return a color near `color`: lighter or darker, a little of another hue."""
        tint = torch.tensor([self.uniform(-1, 1) for _ in range(3)])[:, None, None]
        return (color * (1 + self.uniform(-2, 2) * amount) + tint * amount * 0.5).clamp(0, 1)
