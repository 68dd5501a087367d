"""Which steps a student is calibrated with by default: its bits say what can help, the effort how long it may take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from vitdfq.common.lookup import lookup
from vitdfq.quantization.modules import bits_of

StepSpec = str | dict[str, Any]  # a step's name, or {name: {option: value}}
FLOAT_BITS = 32


@dataclass(frozen=True)
class Effort:
    """How much training a calibration contains.

    Attributes:
        summary: what it is for.
        most_bits: `distill` is a default step for students of at most so many bits.
        distill: its options, where they are not its own defaults.
    """

    summary: str
    most_bits: int
    distill: dict[str, Any]


DEFAULT_EFFORT = "standard"
EFFORTS = {
    "quick": Effort("ranges and GPTQ, no training: seconds to a minute", most_bits=0, distill={}),
    "standard": Effort("a short distillation from 6 bits down: minutes on a CPU", most_bits=6, distill={}),
    "thorough": Effort("a long distillation from 6 bits down: for a GPU, or a night", most_bits=6, distill={"iterations": 2000}),
}


def default_steps(student: nn.Module, effort: str = DEFAULT_EFFORT) -> list[StepSpec]:
    """The default steps for the student's bits: ranges and `gptq`, also `distill` for few bits.

    `equalize_values` and `center` narrow the ranges of activations, and `gptq` rounds weights: they are left out where all of
    these stay in float.

    Args:
        student: what `quantize` returned.
        effort: one of `EFFORTS`.

    Raises:
        ValueError: an unknown effort.
    """
    return steps_for(bits_of(student), effort)


def steps_for(counts: Mapping[str, int | None], effort: str = DEFAULT_EFFORT) -> list[StepSpec]:
    """The default steps for a student of which `bits_of` returns `counts`; see `default_steps`."""
    chosen = lookup(effort, EFFORTS, "effort")
    bits = {kind: FLOAT_BITS if count is None else count for kind, count in counts.items()}
    steps: list[StepSpec] = ["observe"]
    if counts["activation_bits"] is not None:
        steps = ["equalize_values", "center", *steps]
    if counts["weight_bits"] is not None:
        steps.append("gptq")
    if min(bits.values()) <= chosen.most_bits:
        steps.append({"distill": dict(chosen.distill)} if chosen.distill else "distill")
    return steps
