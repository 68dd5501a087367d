"""The student that an analysis looks at: calibrated by the steps that set ranges and round weights, without those that train.

Training adapts all sites to each other's errors: one of them alone, beside others in float, would show nothing of its own.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.analysis.switches import WEIGHT, Switches
from vitdfq.calibration.calibrate import check_steps
from vitdfq.calibration.efforts import StepSpec
from vitdfq.calibration.steps import STEPS
from vitdfq.quantization import quantize
from vitdfq.quantization.fitted import allow, require_fitted
from vitdfq.quantization.modules import named_weighted_modules, put_weight_on_grid, weighted_modules
from vitdfq.runtime.run import Run

ROUNDS = "gptq"  # the one step that rounds weights and trains nothing
TAKEN = ("equalize", "equalize_values", "reparameterize", "center", "observe", ROUNDS)  # the others change the float function


def untrained_steps(steps: Sequence[StepSpec] | None) -> list[StepSpec] | None:
    """Those of a recipe's steps that an analysis takes; None, the default steps, stays None."""
    return None if steps is None else [step for step in steps if _name(step) in TAKEN]


def calibrated_switches(
    student: nn.Module, teacher: nn.Module, images: Tensor, steps: Sequence[StepSpec] | None, seed: int, run: Run
) -> Switches:
    """Calibrate `student` in place, without training, and return its switches.

    Args:
        student: what `quantize` returned, not calibrated.
        teacher: the float model that it was made from.
        images: (N, 3, H, W), on the CPU.
        steps: as of `calibrate`; those that train are left out. None: the default ones of effort "quick", which trains nothing.
        seed: of everything random.
        run: keeps finished units of `gptq`, shares work over processes, receives the progress.

    Raises:
        ValueError: steps that cannot be, or after which a quantizer is not fitted.
    """
    taken = untrained_steps(steps)
    float_weights: dict[str, Tensor] = {}
    for name, options in check_steps(student, taken, "quick" if taken is None else None, seed):
        if name == ROUNDS:
            float_weights = _weights(student)
        STEPS[name].apply(student, teacher, images, options, run=run.part(name))
        student.load_state_dict(run.agree(student.state_dict()))
    require_fitted(student, "analyze", "steps lack observe")
    allow(student)
    float_weights = float_weights or _weights(student)
    for layer in weighted_modules(student):
        put_weight_on_grid(layer)
    return Switches(student, float_weights)


@torch.no_grad()
def weights_at(
    switches: Switches, teacher: nn.Module, images: Tensor, bits: int, steps: Sequence[StepSpec] | None, run: Run
) -> dict[str, Tensor]:
    """Return every quantized weight, (out, ...) by layer, rounded to `bits` bits as the student's calibration rounds.

    The ranges of activations stay those of the student.

    Args:
        switches: of a calibrated student.
        teacher: the float model that the student was made from.
        images: (N, 3, H, W), on the CPU, which `gptq` reads.
        bits: 2 to 8.
        steps: as of `calibrate`; `gptq` alone is taken of them. None: `gptq`.
        run: as of `calibrated_switches`.
    """
    layers = list(switches.float_weights)
    switches.only(switches.parts)
    student = with_weight_bits(switches.student, teacher, dict.fromkeys(layers, bits))
    for name, layer in named_weighted_modules(student):
        if name in layers:
            layer.weight.copy_(switches.float_weights[name])
            if not layer.weight_quantizer.guided:  # gptq fits these
                layer.weight_quantizer.fit(layer.weight.flatten(1))
    rounding: list[StepSpec] = [ROUNDS] if steps is None else [step for step in steps if _name(step) == ROUNDS]
    for name, options in check_steps(student, rounding):
        STEPS[name].apply(student, teacher, images, options, run=run.part(f"{name}_{bits}"))
    student.load_state_dict(run.agree(student.state_dict()))
    require_fitted(student, "analyze", "steps lack observe")
    for layer in weighted_modules(student):
        put_weight_on_grid(layer)
    weights = _weights(student)
    return {name: weights[name] for name in layers}


def with_weight_bits(student: Any, teacher: nn.Module, bits: Mapping[str, int]) -> Any:
    """Return a copy of a calibrated student with new, unfitted quantizers of so many bits at the weights of these layers."""
    record = deepcopy(student.vitdfq["quantize"])
    overrides = record.pop("overrides") or {}
    other = quantize(teacher, **record, overrides=with_weight_overrides(overrides, bits))
    new = tuple(f"{layer}.{WEIGHT}." for layer in bits)
    state, fresh = student.state_dict(), other.state_dict()
    other.load_state_dict({name: value if name.startswith(new) else state[name] for name, value in fresh.items()})
    return other


def with_weight_overrides(overrides: Mapping[str, Any], bits: Mapping[str, int]) -> dict[str, Any]:
    """Return overrides of `quantize` that also give the weights of these layers so many bits; they stand last, which wins."""
    result = dict(overrides)
    for layer, count in bits.items():
        earlier = result.pop(layer, {})
        result[layer] = earlier | {"weight": (earlier.get("weight") or {}) | {"bits": count}}
    return result


def _weights(student: nn.Module) -> dict[str, Tensor]:
    return {name: layer.weight.detach().clone() for name, layer in named_weighted_modules(student)}


def _name(step: StepSpec) -> str:
    return step if isinstance(step, str) else next(iter(step))
