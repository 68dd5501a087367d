"""Calibration steps by name. `step.apply(student, teacher, images, options, run=run)` changes the student in place."""

from collections.abc import Callable
from typing import Any, NamedTuple

from vitdfq.calibration.center import CenterOptions, center
from vitdfq.calibration.correct_bias import CorrectBiasOptions, correct_bias
from vitdfq.calibration.distill import DistillOptions, distill
from vitdfq.calibration.equalize import EqualizeOptions, equalize, equalize_values
from vitdfq.calibration.gptq import GptqOptions, gptq
from vitdfq.calibration.observe import ObserveOptions, observe
from vitdfq.calibration.reconstruct import ReconstructOptions, reconstruct
from vitdfq.calibration.reparameterize import ReparameterizeOptions, reparameterize


class Step(NamedTuple):
    """A calibration step and the dataclass of its options."""

    apply: Callable[..., None]
    options: type[Any]


STEPS: dict[str, Step] = {  # in a sensible order
    "equalize": Step(equalize, EqualizeOptions),  # the first four must come before `observe`
    "equalize_values": Step(equalize_values, EqualizeOptions),
    "reparameterize": Step(reparameterize, ReparameterizeOptions),
    "center": Step(center, CenterOptions),
    "observe": Step(observe, ObserveOptions),
    "gptq": Step(gptq, GptqOptions),
    "reconstruct": Step(reconstruct, ReconstructOptions),
    "correct_bias": Step(correct_bias, CorrectBiasOptions),
    "distill": Step(distill, DistillOptions),
}
