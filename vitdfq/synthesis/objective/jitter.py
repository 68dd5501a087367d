"""Jitter: a cyclic shift and a flip of all images, new at every step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitdfq.synthesis.seeds import generator


@dataclass(frozen=True)
class Jitter:
    """A cyclic shift, then a horizontal flip."""

    offset: int  # pixels down and to the right; PSAQ-ViT (arXiv 2203.02250) shifts both axes by the same amount
    flip: bool

    @staticmethod
    def draw(seed: int, step: int, limit: int) -> "Jitter":
        """Draw a step's jitter, with an offset from -limit to limit. All images share it, whatever their batch."""
        rng = generator(seed, "jitter", step)
        offset = int(torch.randint(-limit, limit + 1, (), generator=rng))
        return Jitter(offset, bool(torch.rand((), generator=rng) < 0.5))

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)"""
        images = torch.roll(images, (self.offset, self.offset), dims=(2, 3))
        return images.flip(3) if self.flip else images


STILL = Jitter(offset=0, flip=False)
