"""Calibration steps by name: `STEPS[name](student, teacher, images, *, ...)` changes the student in place."""

from vitdfq.calibration.center import center
from vitdfq.calibration.correct_bias import correct_bias
from vitdfq.calibration.distill import distill
from vitdfq.calibration.equalize import equalize
from vitdfq.calibration.gptq import gptq
from vitdfq.calibration.observe import observe
from vitdfq.calibration.reconstruct import reconstruct
from vitdfq.calibration.reparameterize import reparameterize

STEPS = {  # in the order in which they make sense
    "equalize": equalize,  # these three rewrite the float function before ranges are fitted
    "reparameterize": reparameterize,
    "center": center,
    "observe": observe,
    "gptq": gptq,
    "reconstruct": reconstruct,
    "correct_bias": correct_bias,
    "distill": distill,
}
