"""Training on poor images can make a student worse while its loss falls. The guard looks at images that were not trained on."""

import math

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of
from vitdfq.synthesis import synthesize
from vitdfq.training.output_distance import ClassifierOutputs, output_distance, run_to_outputs

SEED_OFFSET = 1_000_003  # the guard's images are not those of any run's own seed
PAINTED = 32
MOST_HELD_OUT = 16


class HeldOutValidation:
    """Sets of images to judge a student by: those given, and some of another kind, painted without the model.

    A student that improves on all of them has learned about the network; one that improves on its own images alone has learned
    about these images. No label is needed: what is measured is the distance to the teacher at the end of the network.

    No set has more than 32 images, so each passes at once: that, and the teacher's endings, is what the device holds.

    This library's own.
    """

    def __init__(self, teacher: nn.Module, *given: Tensor, seed: int) -> None:
        painted = synthesize(teacher, method="dead_leaves", num_images=PAINTED, seed=seed + SEED_OFFSET).to(given[0])
        self.before: list[float] | None = None
        self.sets = [images for images in (*given, painted) if len(images)]
        self.targets = [_ending(teacher, images) for images in self.sets]

    def start(self, student: nn.Module) -> None:
        """Measure the student that later ones are compared with, unless one was."""
        if self.before is None:
            self.before = self.errors(student)

    def accepts(self, student: nn.Module) -> bool:
        """Whether the student is worse on no set than the last one accepted; if so, it is what the next is compared with."""
        after = self.errors(student)
        better = worst_ratio(after, self.before or after) <= 1
        self.before = after if better else self.before
        return better

    def errors(self, student: nn.Module) -> list[float]:
        """Distance to the teacher on each set."""
        pairs = zip(self.sets, self.targets, strict=True)
        return [output_distance(_ending(student, images), target).item() for images, target in pairs]


@torch.no_grad()
def _ending(model: nn.Module, images: Tensor) -> ClassifierOutputs:
    return run_to_outputs(model, images.to(device_of(model)))


def worst_ratio(errors: list[float], before: list[float]) -> float:
    """How much of its error is left on the set where least was gained; above 1: a set on which the student got worse.

    Infinity where an error, now or before, is not finite: a student that cannot be measured is not better than another.
    """
    if not all(map(math.isfinite, (*errors, *before))):
        return math.inf  # max would pass over NaN
    return max(now / max(then, 1e-12) for now, then in zip(errors, before, strict=True))


def hold_out(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return (images to train on, images to hold out): an eighth, at most 16; none of fewer than 16."""
    count = min(len(images) // 8, MOST_HELD_OUT) if len(images) >= 16 else 0
    return images[: len(images) - count], images[len(images) - count :]
