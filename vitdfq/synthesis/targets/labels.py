"""The classes of an image, and their target distributions."""

import math
from collections.abc import Sequence
from itertools import cycle, islice

import torch
from torch import Tensor

from vitdfq.synthesis.objective.channel_moments import pearson
from vitdfq.synthesis.seeds import generator

REFERENCE_RANGE = (5.0, 10.0)  # label logits of the relevant classes for 1000 classes: arXiv 2412.16553
REFERENCE_CLASSES = 1000
CANDIDATES = 8  # low-correlation labels per image to choose from
SMOOTHING = 0.1  # mass of a low-correlation label on classes that are not relevant


def image_classes(rng: torch.Generator, seed: int, index: int, count: int, num_classes: int) -> list[int]:
    """Return `count` classes for image `index`, its main class first.

    Main classes follow a new random permutation for every `num_classes` images, so that each covers every class once; the papers
    draw them independently. The other classes come from `rng`, the image's stream, and are distinct while there are enough.
    """
    cycle_index, position = divmod(index, num_classes)
    main = int(torch.randperm(num_classes, generator=generator(seed, "classes", cycle_index))[position])
    others = [label for label in torch.randperm(num_classes, generator=rng).tolist() if label != main]
    return list(islice(cycle([main, *others]), count))


def default_label_range(num_classes: int) -> tuple[float, float]:
    """Return (lower, upper), the range of the relevant classes' label logits in soft targets.

    (5, 10) for 1000 classes. For other counts it is shifted so that a single relevant class reaches the same probability. The
    lower end is at least 2, above the logits of the other classes, which are from 0 to 1; the width is at least 1.
    """
    shift = math.log((REFERENCE_CLASSES - 1) / (num_classes - 1))
    lower = max(REFERENCE_RANGE[0] - shift, 2.0)
    return lower, max(REFERENCE_RANGE[1] - shift, lower + 1.0)


def soft_target(
    rng: torch.Generator, classes: Sequence[int], num_classes: int, label_range: Sequence[float] | None = None
) -> Tensor:
    """Return SARDFQ's soft label (SL): softmax of logits ~ U(0, 1), those of `classes` ~ U(`label_range`). (num_classes,)

    Implemented from the description in arXiv 2412.16553. `label_range` defaults to `default_label_range`.
    """
    lower, upper = label_range or default_label_range(num_classes)
    logits = torch.rand(num_classes, generator=rng)
    logits[list(classes)] = torch.rand(len(classes), generator=rng) * (upper - lower) + lower
    return logits.softmax(0)


def hard_target(
    rng: torch.Generator, classes: Sequence[int], num_classes: int, label_range: Sequence[float] | None = None
) -> Tensor:
    """Return a one-hot target, or equal shares of several classes. (num_classes,)"""
    target = torch.zeros(num_classes)
    target[list(classes)] = 1.0
    return target / target.sum()


def low_correlation_target(
    rng: torch.Generator,
    classes: Sequence[int],
    num_classes: int,
    label_range: Sequence[float] | None = None,
    earlier: Sequence[Tensor] = (),
) -> Tensor:
    """Return a RIS-style soft label: of eight candidates the one least correlated with any of `earlier`. (num_classes,)

    The paper's equations (arXiv 2310.03661) were not available to us; this is our reading of the abstract. In every candidate,
    `classes` share .9 of the mass; the candidates differ in the random distribution of the rest.
    """
    relevant = hard_target(rng, classes, num_classes)
    spread = torch.empty(CANDIDATES, num_classes).exponential_(generator=rng) * (relevant == 0)
    share = SMOOTHING if len(set(classes)) < num_classes else 0.0
    candidates = (1 - share) * relevant + share * spread / spread.sum(1, keepdim=True).clamp(min=1e-12)
    if not earlier:
        return candidates[0]
    return candidates[pearson(candidates, torch.stack(list(earlier))).amax(1).argmin()]


LABELS = {"soft": soft_target, "hard": hard_target, "low_correlation": low_correlation_target}
BANKS = {"low_correlation": 64}  # label kind -> number of preceding images whose targets it gets as `earlier`
