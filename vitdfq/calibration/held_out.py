"""Early stopping on held-out synthetic images: training can make a student worse while its loss falls."""

import math

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of
from vitdfq.synthesis import synthesize
from vitdfq.training.output_distance import ClassifierOutputs, output_distance, run_to_outputs

SEED_OFFSET = 1_000_003  # so that held-out images differ from those of any run's own seed
NUM_PROCEDURAL = 32
MAX_HELD_OUT = 16


class HeldOutValidation:
    """Judges a student on sets of images that it is not trained on: those given, and procedural images.

    A student that improves on every set has learned about the network; one that improves on its training images alone has
    learned about these images. No label is needed: the measure is the distance to the teacher at the end of the network.

    No set has more than 32 images, so each passes at once; the device holds one set and the teacher's outputs.

    This library's own.
    """

    def __init__(self, teacher: nn.Module, *image_sets: Tensor, seed: int) -> None:
        procedural = synthesize(teacher, method="dead_leaves", num_images=NUM_PROCEDURAL, seed=seed + SEED_OFFSET)
        self.accepted_errors: list[float] | None = None
        self.image_sets = [images for images in (*image_sets, procedural.to(image_sets[0])) if len(images)]
        self.targets = [_outputs(teacher, images) for images in self.image_sets]

    def start(self, student: nn.Module) -> None:
        """Measure the student that later ones are compared with, unless that was done before."""
        if self.accepted_errors is None:
            self.accepted_errors = self.errors(student)

    def accepts(self, student: nn.Module) -> bool:
        """Whether the student is worse on no set than the last accepted one. If so, later ones are compared with it."""
        errors = self.errors(student)
        accepted = worst_ratio(errors, self.accepted_errors or errors) <= 1
        self.accepted_errors = errors if accepted else self.accepted_errors
        return accepted

    def errors(self, student: nn.Module) -> list[float]:
        """Distance to the teacher on each set."""
        pairs = zip(self.image_sets, self.targets, strict=True)
        return [output_distance(_outputs(student, images), target).item() for images, target in pairs]


@torch.no_grad()
def _outputs(model: nn.Module, images: Tensor) -> ClassifierOutputs:
    return run_to_outputs(model, images.to(device_of(model)))


def worst_ratio(errors: list[float], before: list[float]) -> float:
    """The share of its error that is left on the set that gained least; above 1: the student got worse on some set.

    Infinity where an error, now or before, is not finite: a student that cannot be measured is not better than another.
    """
    if not all(map(math.isfinite, (*errors, *before))):
        return math.inf  # max would skip NaN
    return max(now / max(then, 1e-12) for now, then in zip(errors, before, strict=True))


def hold_out(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return (training images, held-out images): an eighth is held out, at most 16; none of fewer than 16."""
    count = min(len(images) // 8, MAX_HELD_OUT) if len(images) >= 16 else 0
    return images[: len(images) - count], images[len(images) - count :]
