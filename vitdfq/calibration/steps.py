"""Calibration steps by name: `STEPS[name](student, teacher, images, *, ...)` changes the student in place."""

from vitdfq.calibration.observe import observe
from vitdfq.calibration.reconstruct import reconstruct

STEPS = {
    "observe": observe,
    "reconstruct": reconstruct,
}
