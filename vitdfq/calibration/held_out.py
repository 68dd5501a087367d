"""Early stopping on held-out synthetic images: training can make a student worse while its loss falls."""

import math

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of
from vitdfq.synthesis import TeacherFacts, synthesize
from vitdfq.synthesis.teacher_filter import NoiseReference
from vitdfq.training.output_distance import ModelOutputs, output_distance, run_to_outputs

SEED_OFFSET = 1_000_003  # so that held-out images differ from those of any run's own seed
NUM_PROCEDURAL = 32
MAX_HELD_OUT = 16


class HeldOutValidation:
    """Measures a student on sets of images that it is not trained on: the given ones, and procedural images.

    These are scenes where they suit the teacher, else dead leaves.

    A student whose error falls on every set has learned to be like its teacher; one whose error falls only on its training images
    has overfitted them. The error is the distance to the teacher's outputs (`output_distance`), which needs no label.

    No set has more than 32 images, so that each passes at once; the device holds one set and the teacher's outputs.

    The method is this library's own.

    Args:
        teacher: the float model that the student was made from.
        image_sets: each (N, 3, H, W); empty ones are ignored.
        seed: of the procedural images.
        noise: of the same teacher and seed, if the caller has measured it.
    """

    def __init__(self, teacher: nn.Module, *image_sets: Tensor, seed: int, noise: NoiseReference | None = None) -> None:
        noise = noise or NoiseReference(teacher, TeacherFacts.of(teacher), seed)
        kind = "scenes" if noise.suits("scenes") else "dead_leaves"  # errors on images unlike all others mislead
        procedural = synthesize(teacher, method=kind, num_images=NUM_PROCEDURAL, seed=seed + SEED_OFFSET)
        self.accepted_errors: list[float] | None = None
        self.image_sets = [images for images in (*image_sets, procedural.to(image_sets[0])) if len(images)]
        self.targets = [_outputs(teacher, images) for images in self.image_sets]

    def start(self, student: nn.Module) -> None:
        """Measure the first student, with which later ones are compared; a second call does nothing."""
        if self.accepted_errors is None:
            self.accepted_errors = self.errors(student)

    def accepts(self, student: nn.Module) -> bool:
        """Whether the student's error is on no set larger than the last accepted one's. Later ones are then compared with it."""
        errors = self.errors(student)
        accepted = worst_ratio(errors, self.accepted_errors or errors) <= 1
        self.accepted_errors = errors if accepted else self.accepted_errors
        return accepted

    def errors(self, student: nn.Module) -> list[float]:
        """The student's distance to the teacher on each set."""
        pairs = zip(self.image_sets, self.targets, strict=True)
        return [output_distance(_outputs(student, images), target).item() for images, target in pairs]


@torch.no_grad()
def _outputs(model: nn.Module, images: Tensor) -> ModelOutputs:
    return run_to_outputs(model, images.to(device_of(model)))


def worst_ratio(errors: list[float], before: list[float]) -> float:
    """The largest ratio of an error to the earlier error on the same set; above 1, some error has grown.

    It is infinite if any of the errors is not finite, since such a student cannot be compared.
    """
    if not all(map(math.isfinite, (*errors, *before))):
        return math.inf  # `max` would ignore NaN
    return max(error / max(earlier, 1e-12) for error, earlier in zip(errors, before, strict=True))


def hold_out(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return (training images, held-out images): an eighth is held out, at most 16; none of fewer than 16."""
    count = min(len(images) // 8, MAX_HELD_OUT) if len(images) >= 16 else 0
    return images[: len(images) - count], images[len(images) - count :]
