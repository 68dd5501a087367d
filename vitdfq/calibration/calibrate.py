"""calibrate(): run named steps in order, then put the weights on their grids."""

import inspect
from typing import Any

from torch import Tensor, nn

from vitdfq.calibration.folding import require_fitted
from vitdfq.calibration.steps import STEPS
from vitdfq.pick import did_you_mean, pick
from vitdfq.quantization.modules import put_weight_on_grid, take_weight_off_grid, weighted_modules
from vitdfq.quantization.policy import parse_bits

Step = str | dict[str, Any]


def default_steps(student: nn.Module) -> list[Step]:
    """What the student's bits need: at 8 bits ranges, below 8 well rounded weights, at 4 and fewer also training."""
    weight_bits, activation_bits = parse_bits(student.vitdfq["quantize"]["bits"])
    steps: list[Step] = ["center", "observe"]
    if weight_bits < 8:
        steps.append("gptq")
    if min(weight_bits, activation_bits) <= 4:
        steps.append("distill")
    return steps


def calibrate(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    *,
    steps: list[Step] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Calibrate `student` in place (and return it): scales set, weights on the grid.

    Args:
        student: what `quantize` returned.
        teacher: the float model `quantize` was given; its blocks give the targets. It is not touched.
        images: (N, 3, H, W), normalised as the teacher expects.
        steps: names, or `{name: {option: value}}`, in order; None means `default_steps(student)`, an empty list no step.
        seed: of every random draw; the same seed gives the same student.

    Raises:
        ValueError: unknown step or option; images that are not finite or not (N, 3, H, W); steps after which a quantizer is
            not fitted.
    """
    if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        raise ValueError(f"images must be (N, 3, H, W) with N > 0, not {tuple(images.shape)}")
    if not images.isfinite().all():
        raise ValueError("images hold NaN or infinite values")
    device = next(student.parameters()).device
    for module in weighted_modules(student):
        take_weight_off_grid(module)  # one that was calibrated before: what a step moves must be rounded again
    for name, options in parse_steps(default_steps(student) if steps is None else steps):
        step = STEPS[name]
        if "seed" in inspect.signature(step).parameters:
            options = {"seed": seed} | options
        step(student, teacher, images.to(device), **options)
    require_fitted(student, "calibrate", "steps lack observe")
    for module in weighted_modules(student):
        put_weight_on_grid(module)
    return student


def parse_steps(steps: list[Step]) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, options) pairs.

    Raises:
        ValueError: a step or option is unknown, or a step is neither a name nor a mapping of one name.
    """
    parsed = []
    for entry in steps:
        if isinstance(entry, dict) and len(entry) == 1:
            name, options = next(iter(entry.items()))
            options = options or {}
        elif isinstance(entry, str):
            name, options = entry, {}
        else:
            raise ValueError(f"a step is a name or {{name: {{option: value}}}}, not {entry!r}")
        known = list(inspect.signature(pick(name, STEPS, "calibration step")).parameters)[3:]
        for option in options:
            if option not in known:
                near = did_you_mean(option, known)
                raise ValueError(f"step {name!r}: unknown option {option!r}{near}; choices: {', '.join(known)}")
        parsed.append((name, options))
    return parsed
