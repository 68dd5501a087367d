"""Jitter: a cyclic shift and a flip, new at every step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitdfq.synthesis.seeds import generator


@dataclass(frozen=True)
class Jitter:
    offset: int  # pixels down and to the right; PSAQ-ViT shifts both axes alike
    flip: bool

    @staticmethod
    def draw(seed: int, step: int, limit: int) -> "Jitter":
        """Draw a step's jitter. It depends on seed and step only: all images share it, in whichever batch they are."""
        rng = generator(seed, "jitter", step)
        offset = int(torch.randint(-limit, limit + 1, (), generator=rng))
        return Jitter(offset, bool(torch.rand((), generator=rng) < 0.5))

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)"""
        images = torch.roll(images, (self.offset, self.offset), dims=(2, 3))
        return images.flip(3) if self.flip else images


STILL = Jitter(offset=0, flip=False)
