"""Calibration: set a student's scales and adjust its weights, from synthetic images alone."""

from vitdfq.calibration.calibrate import calibrate
from vitdfq.calibration.steps import STEPS

__all__ = ["STEPS", "calibrate"]
