"""Learning rate and jitter over the run: PSAQ-ViT's schedule (arXiv 2203.02250), which SARDFQ shares."""

import math
from dataclasses import dataclass

from vitdfq.models.family import AttentionSite

REFERENCE_SIDE = 224  # pixel counts of the papers hold for images of this side


@dataclass(frozen=True)
class Schedule:
    """A round for each entry of `rolls`; in it the learning rate warms up linearly, then falls to 0 along a cosine."""

    rolls: tuple[int, ...] = (15, 30)  # largest cyclic shift in pixels of a 224-pixel image, one round each
    warmup: float = 0.2  # share of a round

    def lr_factor(self, step: int, steps: int) -> float:
        _, start, end = self._round(step, steps)
        done, length = step - start, end - start
        warmup = int(self.warmup * length)
        if done < warmup:
            return (done + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (length - warmup)))

    def roll_limit(self, step: int, steps: int, side: int) -> int:
        """The largest shift at this step for images whose shorter side is `side`."""
        index, _, _ = self._round(step, steps)
        return max(1, round(self.rolls[index] * side / REFERENCE_SIDE))

    def _round(self, step: int, steps: int) -> tuple[int, int, int]:
        """Index, first step and end of the round that holds `step`."""
        starts = [index * steps // len(self.rolls) for index in range(len(self.rolls) + 1)]
        index = max(index for index in range(len(self.rolls)) if starts[index] <= step)
        return index, starts[index], starts[index + 1]


def default_lr(sites: list[AttentionSite]) -> float:
    """.20 where a class token reads the image (ViT, DeiT), .25 where attention is pooled over queries (Swin)."""
    return 0.20 if all(site.class_row for site in sites) else 0.25
