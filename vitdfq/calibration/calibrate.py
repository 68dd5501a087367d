"""calibrate(): run named steps in order, then put the weights on their grids."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vitdfq.calibration.steps import STEPS
from vitdfq.common.lookup import did_you_mean, lookup
from vitdfq.models.type_checks import require_student
from vitdfq.quantization.fitted import require_fitted
from vitdfq.quantization.modules import bits_of, put_weight_on_grid, take_weight_off_grid, weighted_modules
from vitdfq.runtime import distributed
from vitdfq.runtime.partial_results import PartialResults

Step = str | dict[str, Any]
COUNTS = ("num_images", "batch_size", "iterations")  # options of steps: at least 1 wherever they stand
FLOAT_BITS = 32


def default_steps(student: nn.Module) -> list[Step]:
    """What the student's bits need: at 8 bits ranges, below 8 well rounded weights, at 4 and fewer also training.

    `center` narrows the ranges of activations, so it is left out where all of these stay in float.
    """
    found = bits_of(student)
    bits = {kind: FLOAT_BITS if number is None else number for kind, number in found.items()}
    steps: list[Step] = ["observe"] if found["activation_bits"] is None else ["center", "observe"]
    if bits["weight_bits"] < 8:
        steps.append("gptq")
    if min(bits.values()) <= 4:
        steps.append("distill")
    return steps


def calibrate(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    *,
    steps: list[Step] | None = None,
    seed: int = 0,
    shelf: PartialResults | None = None,
) -> nn.Module:
    """Calibrate `student` in place (and return it): scales set, weights on the grid.

    Args:
        student: what `quantize` returned.
        teacher: the float model `quantize` was given; its blocks give the targets. It is not touched.
        images: (N, 3, H, W), normalised as the teacher expects. They stay in host memory; see `streams.py`.
        steps: names, or `{name: {option: value}}`, in order; None means `default_steps(student)`, an empty list no step.
        seed: of every random draw; the same seed gives the same student.
        shelf: where what is finished waits, so that an interrupted call goes on.

    Raises:
        ValueError: a model that `quantize` did not return; unknown step or option; images that are not finite or not
            (N, 3, H, W); steps after which a quantizer is not fitted.
    """
    require_student(student, "calibrate")
    if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        raise ValueError(f"images must be (N, 3, H, W) with N > 0, not {tuple(images.shape)}")
    if not images.isfinite().all():
        raise ValueError("images hold NaN or infinite values")
    parsed = check_steps(student, steps)
    for module in weighted_modules(student):
        take_weight_off_grid(module)  # one that was calibrated before: what a step moves must be rounded again
    shelf, images = shelf or PartialResults(), images.cpu()  # steps take what they need to the device, a batch at a time
    for number, (name, options) in enumerate(parsed[(done := _resume(student, parsed, shelf)) :], start=done):
        step, title = STEPS[name], f"{number}_{name}"
        known, parts = inspect.signature(step).parameters, shelf.part(f"{title}_parts")
        own = {"seed": seed, "shelf": parts}
        step(student, teacher, images, **{key: value for key, value in own.items() if key in known} | options)
        student.load_state_dict(state := distributed.agreed(student.state_dict()))
        shelf.put(title, state)
        parts.clear()
    require_fitted(student, "calibrate", "steps lack observe")
    for module in weighted_modules(student):
        put_weight_on_grid(module)
    return student


def _resume(student: nn.Module, steps: list[tuple[str, dict[str, Any]]], shelf: PartialResults) -> int:
    """Put the student into the state after the last step that is finished; return how many are."""
    for number in reversed(range(len(steps))):
        if (state := shelf.get(f"{number}_{steps[number][0]}")) is not None:
            student.load_state_dict(state)
            return number + 1
    return 0


def check_steps(student: nn.Module, steps: list[Step] | None) -> list[tuple[str, dict[str, Any]]]:
    """Return the (name, options) pairs of `steps`, or of the default steps, before any of them runs.

    Raises:
        ValueError: as `parse_steps`; AdaRound of weights in groups.
    """
    parsed = parse_steps(default_steps(student) if steps is None else steps)
    groups = [getattr(module.weight_quantizer, "group_size", None) for module in weighted_modules(student)]
    for name, options in parsed:
        if options.get("rounding") == "adaround" and any(groups):
            size, other = next(filter(None, groups)), "choices: straight_through, or group_size null"
            raise ValueError(f"step {name!r}: rounding 'adaround' does not go with weight.group_size {size}; {other}")
    return parsed


def check_count(value: Any, where: str = "") -> None:
    """Raise ValueError unless `value` is a whole number, at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{where}{value!r} is not a whole number of at least 1")


def parse_steps(steps: list[Step]) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, options) pairs.

    Raises:
        ValueError: `steps` is no list; a step or option is unknown; a step is neither a name nor a mapping of one name to its
            options; a count is no whole number or less than 1.
    """
    if not isinstance(steps, list | tuple):
        raise ValueError(f"steps is {steps!r}; expected a list such as ['observe']")
    parsed = []
    for entry in steps:
        if isinstance(entry, dict) and len(entry) == 1:
            name, options = next(iter(entry.items()))
            options = {} if options is None else options
        elif isinstance(entry, str):
            name, options = entry, {}
        else:
            raise ValueError(f"a step is a name or {{name: {{option: value}}}}, not {entry!r}")
        known = [key for key in list(inspect.signature(lookup(name, STEPS, "calibration step")).parameters)[3:] if key != "shelf"]
        if not isinstance(options, Mapping):
            raise ValueError(f"step {name!r}: options is {options!r}; expected a mapping {{option: value}}")
        for option in options:
            if option not in known:
                near = did_you_mean(option, known)
                raise ValueError(f"step {name!r}: unknown option {option!r}{near}; choices: {', '.join(known)}")
            if option in COUNTS:
                check_count(options[option], f"step {name!r}: {option} ")
        parsed.append((name, options))
    return parsed
