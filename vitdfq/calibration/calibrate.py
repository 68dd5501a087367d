"""calibrate(): apply calibration steps by name, then put the weights on their quantization grids."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor, nn

from vitdfq.calibration.efforts import DEFAULT_EFFORT, EFFORTS, StepSpec, default_steps
from vitdfq.calibration.steps import STEPS
from vitdfq.common.gradients import with_gradients
from vitdfq.common.lookup import lookup
from vitdfq.common.options import build_options
from vitdfq.models import checked_images, require_float, require_student
from vitdfq.quantization.fitted import allow, require_fitted
from vitdfq.quantization.modules import put_weight_on_grid, take_weight_off_grid, weighted_modules
from vitdfq.runtime.run import Run


class PlannedStep(NamedTuple):
    """A step and its checked options."""

    name: str
    options: Any  # of the dataclass `STEPS[name].options`


@with_gradients
def calibrate(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    *,
    steps: list[StepSpec] | None = None,
    effort: str | None = None,
    seed: int = 0,
    run: Run | None = None,
) -> nn.Module:
    """Calibrate `student` in place (and return it): scales set, weights on the grid.

    Args:
        student: what `quantize` returned.
        teacher: the float model that `quantize` was given; its blocks give the targets. It is not changed.
        images: (N, 3, H, W), normalized as the teacher expects. They stay in host memory; see `cached_activations.py`.
        steps: names, or `{name: {option: value}}`, in order. None: `default_steps(student, effort)`. An empty list: no step.
        effort: "quick", "standard" (None) or "thorough": how much training the default steps contain, see `EFFORTS`.
        seed: of everything random; the same seed gives the same student.
        run: keeps finished steps, so that an interrupted call can continue; shares work over processes; receives the progress.

    Raises:
        ValueError: a model that `quantize` did not return, or another teacher; unknown step, option or effort; both steps and an
            effort; images that the teacher cannot take, or that are not normalized (see `checked_images`); steps after which a
            quantizer is not fitted.
    """
    require_student(student, "calibrate")
    require_its_teacher(student, teacher)
    images = checked_images(teacher, images)  # on the CPU: steps copy a batch at a time to the device
    planned = check_steps(student, steps, effort, seed)
    for module in weighted_modules(student):
        take_weight_off_grid(module)  # an earlier calibration put it there; weights that a step changes must be rounded again
    run = run or Run()
    done = _resume(student, planned, run)
    for index, (name, options) in list(enumerate(planned))[done:]:
        title = f"{index}_{name}"
        parts = run.part(f"{title}_parts")
        STEPS[name].apply(student, teacher, images, options, run=parts)
        student.load_state_dict(state := run.agree(student.state_dict()))
        run.checkpoint(title, state)
        parts.forget()
    require_fitted(student, "calibrate", "steps lack observe")
    allow(student)
    for module in weighted_modules(student):
        put_weight_on_grid(module)
    return student


def require_its_teacher(student: Any, teacher: Any) -> None:
    """Raise ValueError when the teacher is not the float model that the student was made from, by their descriptions."""
    require_float(teacher, "calibrate")
    made_of, given = student.vitdfq, teacher.vitdfq
    if any(made_of["model"][key] != given["model"][key] for key in ("model_args", "num_classes")):
        raise ValueError(
            f"the student is of {made_of['model']['name']}, the teacher is {given['model']['name']} or built otherwise"
        )
    steps, others = (record.get("prepare", {}).get("steps", []) for record in (made_of, given))
    if steps != others:
        raise ValueError(
            f"the student was made from a model prepared by {steps}, the teacher is prepared by {others}: pass that model"
        )


def _resume(student: nn.Module, planned: Sequence[PlannedStep], run: Run) -> int:
    """Restore the student's state after the last finished step; return the number of finished steps."""
    for index in reversed(range(len(planned))):
        if (state := run.resume(f"{index}_{planned[index].name}")) is not None:
            student.load_state_dict(state)
            return index + 1
    return 0


def check_steps(
    student: nn.Module, steps: list[StepSpec] | None = None, effort: str | None = None, seed: int = 0
) -> list[PlannedStep]:
    """Return the steps of a calibration of `student`, or the default ones, all of them checked.

    Raises:
        ValueError: as `parse_steps`; an unknown effort, or one beside steps; AdaRound for weights with a `group_size`.
    """
    check_effort(effort, steps)
    planned = parse_steps(default_steps(student, effort or DEFAULT_EFFORT) if steps is None else steps, seed)
    groups = [getattr(module.weight_quantizer, "group_size", None) for module in weighted_modules(student)]
    for name, options in planned:
        if getattr(options, "rounding", None) == "adaround" and any(groups):
            size, other = next(filter(None, groups)), "choices: straight_through, or group_size null"
            raise ValueError(f"step {name!r}: rounding 'adaround' does not go with weight.group_size {size}; {other}")
    return planned


def check_effort(effort: str | None, steps: list[StepSpec] | None) -> None:
    """Raise ValueError for an unknown effort, or one beside steps, on which it would have no effect."""
    if effort is None:
        return
    lookup(effort, EFFORTS, "effort")
    if steps is not None:
        raise ValueError(f"effort {effort!r} chooses the default steps, and steps are given: leave one of the two out")


def parse_steps(steps: list[StepSpec], seed: int = 0) -> list[PlannedStep]:
    """Return the steps with their options. Random steps take `seed` unless their options set another one.

    Raises:
        ValueError: `steps` is no list; an entry is neither a name nor a mapping of one name to its options; an unknown step or
            option; an option's value that the step does not accept.
    """
    if not isinstance(steps, list | tuple):
        raise ValueError(f"steps is {steps!r}; expected a list such as ['observe']")
    planned = []
    for entry in steps:
        if isinstance(entry, dict) and len(entry) == 1:
            name, given = next(iter(entry.items()))
        elif isinstance(entry, str):
            name, given = entry, None
        else:
            raise ValueError(f"a step is a name or {{name: {{option: value}}}}, not {entry!r}")
        options = build_options(lookup(name, STEPS, "calibration step").options, given, where=f"step {name!r}")
        if hasattr(options, "seed") and "seed" not in (given or {}):
            options = replace(options, seed=seed)
        planned.append(PlannedStep(name, options))
    return planned
