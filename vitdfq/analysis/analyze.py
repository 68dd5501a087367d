"""analyze(): where a student loses accuracy, without labels, and which bits each layer should have under a budget."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.analysis.allocation import allocate
from vitdfq.analysis.attention import AttentionError, attention_errors
from vitdfq.analysis.budget import BUDGETS, Budget
from vitdfq.analysis.errors import Scores, error_of
from vitdfq.analysis.passes import HeldOutPasses
from vitdfq.analysis.ranges import ValueRange, value_ranges
from vitdfq.analysis.sensitivity import (
    Measure,
    SiteSensitivity,
    UnitErrors,
    measured_scores,
    site_sensitivities,
    unit_errors,
    weight_errors,
)
from vitdfq.analysis.untrained import calibrated_switches, weights_at, with_weight_overrides
from vitdfq.calibration.calibrate import require_its_teacher
from vitdfq.calibration.efforts import StepSpec
from vitdfq.common.gradients import with_gradients
from vitdfq.models import checked_images, require_float
from vitdfq.quantization import quantize
from vitdfq.runtime.run import Run

CHOICES = (2, 3, 4, 5, 6, 8)  # bits of a layer; each takes a calibration of the weights
HELD_OUT_SHARE = 4  # a quarter of the images
ROUNDING = 1e-12  # of the sum of a budget: shares of all layers may add up to a little more than one


@dataclass(frozen=True)
class Reference:
    """A student whose quantized weights all have the same bits, the most that the budget allows."""

    bits: int
    cost: float
    scores: Scores


@dataclass(frozen=True)
class Allocation:
    """Bits by layer under a budget.

    Attributes:
        budget, amount: "average-bits" and 4.0.
        bits: layer -> bits of its weight; the same for all where no other bits within the budget are found to be better.
        cost: of the student, in the budget's unit: bytes, bits, or bit operations.
        scores: on the held-out images, all sites quantized, before any training.
        uniform: the student to compare it with; None where even the fewest bits for all layers exceed the budget.
        errors: layer -> bits -> error of the student whose only quantized values are this layer's weight: KL, for features the
            relative squared error of the output.
    """

    budget: str
    amount: float
    bits: dict[str, int]
    cost: float
    scores: Scores
    uniform: Reference | None
    errors: dict[str, dict[int, float]]

    def overrides(self, earlier: dict[str, Any] | None = None) -> dict[str, Any]:
        """The argument `overrides` of `quantize` that gives each layer its bits, after earlier overrides."""
        return with_weight_overrides(earlier or {}, self.bits)


@dataclass(frozen=True)
class Analysis:
    """What `analyze` returns; `to_dict` gives plain values.

    Attributes:
        num_images, num_held_out: of calibration, and of the scores.
        student: scores with all sites quantized, see `output_scores`; `measured`: what `measure` gave for it.
        sites: the most sensitive first.
        units: weights against activations, in the order of the chain.
        ranges: every quantizer, in the order of the sites.
        attention: in the order of the blocks.
        allocation: None without a budget.
    """

    num_images: int
    num_held_out: int
    student: Scores
    measured: Scores
    sites: list[SiteSensitivity]
    units: list[UnitErrors]
    ranges: list[ValueRange]
    attention: list[AttentionError]
    allocation: Allocation | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@with_gradients
@torch.no_grad()
def analyze(
    model: Any,
    images: Tensor,
    *,
    teacher: nn.Module | None = None,
    held_out: Tensor | None = None,
    budget: str | None = None,
    choices: Sequence[int] = CHOICES,
    steps: list[StepSpec] | None = None,
    measure: Measure | None = None,
    seed: int = 0,
    run: Run | None = None,
    **quantization: Any,
) -> Analysis:
    """Measure what each site, each unit and each range costs, on held-out synthetic images; no model is changed.

    The student that is measured is calibrated without training: its ranges are set and its weights rounded by `gptq`. One trained
    by `distill` or `reconstruct` has no error of a single site, since its weights make up for each other's errors. With sites
    switched off it computes the teacher's function.

    Args:
        model: a float model (of `load_teacher` or `prepare`), quantized as `quantization` says; or a student (of `quantize`,
            calibrated or not), whose own arguments of `quantize` are used.
        images: (N, 3, H, W), normalized: the student is calibrated on them.
        teacher: of a student, the float model that it was made from; of a float model None.
        held_out: (M, 3, H, W), other images, that all scores are measured on. None: the last quarter of `images`, which is then
            left out of the calibration.
        budget: "size=0.7MB" (of model.safetensors), "average-bits=4" (of a weight) or "bops=1.2G" (multiplications of an image
            times the bits of their operands): also choose bits for each layer's weight. Bits of activations stay.
        choices: bits that a layer may get.
        measure: called with every student that is scored, for numbers on images of yours: `lambda student:
            vitdfq.evaluate(student, dataset=...)`. They are reported and decide nothing.
        steps, seed, run: as of `calibrate`; steps that train are left out.
        quantization: keyword arguments of `quantize`.

    Raises:
        ValueError: as `quantize`; a student without its teacher, or with arguments of `quantize`; fewer than four images and none
            held out; a budget that cannot be read or met.
    """
    run = run or Run()
    teacher, quantization = _float_model(model, teacher, quantization)
    wanted = None if budget is None else Budget.parse(budget)
    images, held_out = _split(teacher, images, held_out)
    student = quantize(teacher, **quantization)
    switches = calibrated_switches(student, teacher, images, steps, seed, run.part("calibration"))
    passes = HeldOutPasses(switches, teacher, held_out)
    scores, measured = passes.scores(passes.outputs_of_rest(0)), measured_scores(measure, switches.student)
    allocation = None
    if wanted is not None:  # first: a budget that cannot be met must not cost an analysis
        allocation = _allocate(wanted, passes, teacher, images, tuple(sorted(set(choices))), steps, run)
    return Analysis(
        num_images=len(images),
        num_held_out=len(held_out),
        student=scores,
        measured=measured,
        sites=site_sensitivities(passes, measure, run.part("sites")),
        units=unit_errors(passes),
        ranges=value_ranges(passes),
        attention=attention_errors(passes, teacher),
        allocation=allocation,
    )


def _float_model(model: Any, teacher: nn.Module | None, quantization: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The float model, and the arguments of `quantize`."""
    record = getattr(model, "vitdfq", None)
    record = record.get("quantize") if isinstance(record, dict) else None
    if record is None:
        if teacher is not None:
            raise ValueError("analyze: teacher is the float model of a student; this model is in float itself")
        require_float(model, "analyze")
        return model, quantization
    if teacher is None:
        raise ValueError("analyze: a student needs teacher=, the float model that it was made from")
    if quantization:
        raise ValueError(f"analyze: the student says how it is quantized; leave out {', '.join(quantization)}")
    require_its_teacher(model, teacher)
    return teacher, record


def _split(teacher: nn.Module, images: Tensor, held_out: Tensor | None) -> tuple[Tensor, Tensor]:
    """Images of calibration, and others, both checked and on the CPU."""
    images = checked_images(teacher, images)
    if held_out is not None:
        return images, checked_images(teacher, held_out)
    count = len(images) // HELD_OUT_SHARE
    if count == 0:
        raise ValueError(f"analyze: {len(images)} images are too few to hold some of them out; give held_out=")
    return images[:-count], images[-count:]


def _allocate(
    budget: Budget,
    passes: HeldOutPasses,
    teacher: nn.Module,
    images: Tensor,
    choices: tuple[int, ...],
    steps: list[StepSpec] | None,
    run: Run,
) -> Allocation:
    """Choose the bits of every layer, and measure the student that they make.

    Errors of layers do not quite add up: where the same bits everywhere make a student as good, these are chosen.
    """
    switches = passes.switches
    costs = BUDGETS[budget.kind](switches, teacher, choices)
    most = budget.amount * (1 + ROUNDING)
    least = costs.of(dict.fromkeys(costs.by_layer, choices[0]))
    if least > most:
        given = f"budget {budget.kind}={budget.amount:.6g}"
        raise ValueError(f"{given}: the least possible is {least:.6g}, with {choices[0]} bits everywhere")
    weights = {bits: weights_at(switches, teacher, images, bits, steps, run.part("weights")) for bits in choices}
    errors = weight_errors(passes, weights, run.part("weight_errors"))
    bits_of = allocate(errors, costs.by_layer, most - costs.rest)

    def scores(bits_of: dict[str, int]) -> Scores:
        switches.only(switches.parts)
        for layer, bits in bits_of.items():
            switches.put_weight(layer, weights[bits][layer])
        result = passes.scores(passes.outputs_of_rest(0))
        switches.only(switches.parts)
        return result

    uniform, chosen = None, scores(bits_of)
    fitting = [bits for bits in choices if costs.of(dict.fromkeys(costs.by_layer, bits)) <= most]
    if fitting:
        same = dict.fromkeys(costs.by_layer, fitting[-1])
        uniform = Reference(fitting[-1], costs.of(same), scores(same))
        if error_of(uniform.scores) <= error_of(chosen):
            bits_of, chosen = same, uniform.scores
    return Allocation(budget.kind, budget.amount, bits_of, costs.of(bits_of), chosen, uniform, errors)
