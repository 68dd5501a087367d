"""Which classes an image shall show, and the target distribution that asks for them."""

import math
from collections.abc import Sequence
from itertools import cycle, islice

import torch
from torch import Tensor

from vitdfq.synthesis.objective.channel_moments import pearson
from vitdfq.synthesis.seeds import generator

REFERENCE_RANGE = (5.0, 10.0)  # of the relevant classes' label logits at 1000 classes: arXiv 2412.16553
REFERENCE_CLASSES = 1000
CANDIDATES = 8  # of low-correlation labels, for one image
SMOOTHING = 0.1  # their mass on other classes


def image_classes(rng: torch.Generator, seed: int, index: int, count: int, num_classes: int) -> list[int]:
    """Return `count` classes for image `index`, its main class first.

    Main classes follow a cycle shuffled by the seed, so that the first `num_classes` images cover every class once; the
    papers draw them at random. The other classes come from the image's own `rng`, distinct while there are enough.
    """
    turn, place = divmod(index, num_classes)
    main = int(torch.randperm(num_classes, generator=generator(seed, "classes", turn))[place])
    others = [label for label in torch.randperm(num_classes, generator=rng).tolist() if label != main]
    return list(islice(cycle([main, *others]), count))


def default_label_range(num_classes: int) -> tuple[float, float]:
    """Return the range of the relevant classes' label logits.

    (5, 10) at 1000 classes. For other counts it is shifted so that a single relevant class reaches the same
    probability, with at least 2 as the lower end, so that it stays above the others' (0, 1), and a width of at least 1.
    """
    shift = math.log((REFERENCE_CLASSES - 1) / (num_classes - 1))
    lower = max(REFERENCE_RANGE[0] - shift, 2.0)
    return lower, max(REFERENCE_RANGE[1] - shift, lower + 1.0)


def soft_target(
    rng: torch.Generator, classes: Sequence[int], num_classes: int, label_range: Sequence[float] | None = None
) -> Tensor:
    """SARDFQ's soft label (SL): softmax of logits U(0, 1), those of `classes` from `label_range`.

    As described in arXiv 2412.16553, whose code is not public. Returns (num_classes,).
    """
    lower, upper = label_range or default_label_range(num_classes)
    logits = torch.rand(num_classes, generator=rng)
    logits[list(classes)] = torch.rand(len(classes), generator=rng) * (upper - lower) + lower
    return logits.softmax(0)


def hard_target(
    rng: torch.Generator, classes: Sequence[int], num_classes: int, label_range: Sequence[float] | None = None
) -> Tensor:
    """One-hot, or equal shares where several classes are asked for. Returns (num_classes,)."""
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
    """RIS-style soft label: of several smoothed labels the one whose greatest correlation with `earlier` labels is least.

    The paper's equations (arXiv 2310.03661) were not available to us; this is our reading of the abstract. `classes` share .9
    of the mass, the rest is spread at random, so only the rest can be chosen. Returns (num_classes,).
    """
    relevant = hard_target(rng, classes, num_classes)
    spread = torch.empty(CANDIDATES, num_classes).exponential_(generator=rng) * (relevant == 0)
    share = SMOOTHING if len(set(classes)) < num_classes else 0.0
    candidates = (1 - share) * relevant + share * spread / spread.sum(1, keepdim=True).clamp(min=1e-12)
    if not earlier:
        return candidates[0]
    return candidates[pearson(candidates, torch.stack(list(earlier))).amax(1).argmin()]


LABELS = {"soft": soft_target, "hard": hard_target, "low_correlation": low_correlation_target}
BANKS = {"low_correlation": 64}  # how many targets of the images before are given to a label kind as `earlier`
