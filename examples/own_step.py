"""A calibration step of your own: `python examples/own_step.py`."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import vitdfq
from vitdfq.calibration.steps import STEPS, Step
from vitdfq.runtime.run import Run


# [start:step]
@dataclass(frozen=True)
class ShrinkBiasOptions:
    """Options of `shrink_bias`.

    Attributes:
        factor: what each bias is multiplied by.
    """

    factor: float = 0.999


@torch.no_grad()
def shrink_bias(
    student: nn.Module, teacher: nn.Module, images: Tensor, options: ShrinkBiasOptions | None = None, *, run: Run | None = None
) -> None:
    """Multiply every bias of the student; an example of the form of a step, of no use."""
    options = options or ShrinkBiasOptions()
    for name, value in student.named_parameters():
        if name.endswith("bias"):
            value.mul_(options.factor)


STEPS["shrink_bias"] = Step(shrink_bias, ShrinkBiasOptions)  # in the package: one line in calibration/steps.py
# [end:step]

teacher = vitdfq.load_teacher("zoo:vit")
student = vitdfq.quantize(teacher, bits="w8a8")
images = vitdfq.synthesize(teacher, method="noise", num_images=4)
vitdfq.calibrate(student, teacher, images, steps=["observe", {"shrink_bias": {"factor": 0.99}}])
