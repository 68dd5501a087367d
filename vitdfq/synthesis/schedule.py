"""Learning rate and jitter during a run: PSAQ-ViT's schedule (arXiv 2203.02250), which SARDFQ (arXiv 2412.16553) shares."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from vitdfq.models.family import AttentionSite

REFERENCE_SIDE = 224  # side, in pixels, of the images for which the papers give pixel counts


@dataclass(frozen=True)
class Schedule:
    """One round for each entry of `rolls`. In a round the learning rate warms up linearly, then falls to 0 along a cosine."""

    rolls: tuple[int, ...] = (15, 30)  # largest cyclic shift of each round, in pixels of a 224-pixel image
    warmup: float = 0.2  # share of a round

    def lr_lambda(self, steps: int) -> Callable[[int], float]:
        """Return `lr_factor` of a run of `steps` steps as `torch.optim.lr_scheduler.LambdaLR` takes it: step -> factor."""
        return partial(self.lr_factor, steps=steps)

    def lr_factor(self, step: int, steps: int) -> float:
        """Return the learning rate at `step` of `steps` as a share of its peak."""
        _, start, end = self._round(step, steps)
        done, length = step - start, end - start
        warmup = int(self.warmup * length)
        if done < warmup:
            return (done + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (length - warmup)))

    def roll_limit(self, step: int, steps: int, side: int) -> int:
        """Return the largest cyclic shift at `step`, in pixels, for images whose shorter side has `side` pixels."""
        index, _, _ = self._round(step, steps)
        return max(1, round(self.rolls[index] * side / REFERENCE_SIDE))

    def _round(self, step: int, steps: int) -> tuple[int, int, int]:
        """Return (index, first step, end) of the round that contains `step`."""
        starts = [index * steps // len(self.rolls) for index in range(len(self.rolls) + 1)]
        index = max(index for index in range(len(self.rolls)) if starts[index] <= step)
        return index, starts[index], starts[index + 1]


def default_lr(sites: list[AttentionSite]) -> float:
    """Return Adam's peak rate on pixels: .20 with a class token (ViT, DeiT), .25 where attention is averaged (Swin)."""
    return 0.20 if all(site.class_row for site in sites) else 0.25
