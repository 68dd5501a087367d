"""What a student is expected to be worth on real images, with intervals, from its outputs on synthetic images alone.

Few synthetic images change their class, often none of them, so that counting says little. Two measures take the place of the
count: `crossed_agreement` tries the errors of all images on all images; `lost_signal` finds a student that gives one class to
every image, with which a teacher agrees that does the same on synthetic images. How the two are related to agreement and top-1
on real images, and how far a model can be from this relation, was measured by `benchmarks/confidence.py`, which writes
`expectation.json`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitdfq.common.files import read_json

CONSTANTS = Path(__file__).with_name("expectation.json")
LEAST_SHARE = 2e-4  # of pairs of images, and of signal: less is not told apart from none
MOST_SHARE = 0.98
LEAST_LOSS = 0.0025  # of images: a smaller loss of top-1 is not told apart from none, or from a small gain


@dataclass(frozen=True)
class Line:
    """The log-odds of a share of real images, as a linear function of two log-odds on synthetic images.

    Attributes:
        crossed, lost, intercept: of the log-odds of 1 - `crossed_agreement`, and of `lost_signal`.
        low, high: how far below and above the line the truth is.
    """

    crossed: float
    lost: float
    intercept: float
    low: float
    high: float

    def shares(self, measures: tuple[float, float]) -> tuple[float, float, float]:
        """Value, low and high, each 0 to 1, for what `measures_of` returned."""
        center = self.intercept + self.crossed * measures[0] + self.lost * measures[1]
        value, low, high = (1 / (1 + math.exp(-(center + shift))) for shift in (0.0, self.low, self.high))
        return value, low, high


@dataclass(frozen=True)
class Expectation:
    """The content of `expectation.json` that is computed with; `level`: share of students whose truth an interval should hold."""

    level: float
    disagreement: Line
    loss: Line

    @classmethod
    def read(cls, path: Path = CONSTANTS) -> "Expectation":
        content = read_json(path)
        return cls(content["level"], Line(**content["disagreement"]), Line(**content["loss"]))

    def of(self, measures: tuple[float, float]) -> dict[str, Any]:
        """Return `agreement` in percent and `top1_loss` in points, each with `value`, `low` and `high`, and `level`."""
        value, least, most = (100 * share for share in self.disagreement.shares(measures))
        loss, low, high = (100 * share for share in self.loss.shares(measures))
        low = low if low > 100 * LEAST_LOSS else -100 * LEAST_LOSS
        return {
            "agreement": _rounded(100 - value, 100 - most, 100 - least),
            "top1_loss": _rounded(min(loss, value), low, min(high, most)),
            "level": self.level,
        }


def expectation(pairs: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Any] | None:
    """Return what to expect on real images, see `Expectation.of`; None for logits that tell no classes apart.

    Args:
        pairs: for each of several kinds of images the logits (N, C) of a student and of its teacher; none of the images served
            the student's calibration.
    """
    outputs, target = (torch.cat(logits) for logits in zip(*pairs, strict=True))
    return None if target.shape[1] < 2 else Expectation.read().of(measures_of(outputs, target))


def measures_of(outputs: Tensor, target: Tensor) -> tuple[float, float]:
    """The log-odds of 1 - `crossed_agreement` and of `lost_signal`; arguments as theirs."""
    return log_odds(1 - crossed_agreement(outputs, target)), log_odds(lost_signal(outputs, target))


def crossed_agreement(outputs: Tensor, target: Tensor) -> float:
    """Return the share of pairs of images (i, j) where the error of j leaves the teacher's class of i the most probable one.

    N images thus give N² trials. A class is known by its rank among the teacher's classes for its image, since errors depend on
    it: the largest logit often loses most.

    Args:
        outputs, target: logits (N, C) of a student and of its teacher.
    """
    target, outputs = target.double(), outputs.double()
    ranks = target.argsort(1, descending=True)
    logits, errors = target.gather(1, ranks), (outputs - target).gather(1, ranks)
    kept = sum(int(((logits + error).argmax(1) == 0).sum()) for error in errors)
    return kept / len(logits) ** 2


def lost_signal(outputs: Tensor, target: Tensor) -> float:
    """Return the squared error of logits (N, C), relative to how much the teacher's differ from image to image.

    Logits are centered over the classes, which changes no probability. A student whose logits are the teacher's mean has 1.
    """
    target, outputs = (logits.double() - logits.double().mean(1, keepdim=True) for logits in (target, outputs))
    signal = (target - target.mean(0)).square().sum().item()
    return (outputs - target).square().sum().item() / signal if signal else 1.0


def log_odds(share: float, least: float = LEAST_SHARE) -> float:
    """The logarithm of share / (1 - share), of a share that is at least `least` and at most `MOST_SHARE`."""
    share = min(max(share, least), MOST_SHARE)
    return math.log(share / (1 - share))


def _rounded(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": round(value, 2), "low": round(low, 2), "high": round(high, 2)}
