"""What a recipe will cost here: a probe of its own models, times how often each stage does what was probed."""

import inspect
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn

from vitdfq.calibration import STEPS
from vitdfq.calibration.calibrate import check_steps
from vitdfq.calibration.distill import CHECKS, SHARD_BYTES, SHARDS
from vitdfq.calibration.held_out import MOST_HELD_OUT, PAINTED
from vitdfq.cost import timing
from vitdfq.data import transform_of
from vitdfq.evaluation import evaluate
from vitdfq.models import units
from vitdfq.recipe import Recipe
from vitdfq.synthesis import METHODS, Method, synthesize
from vitdfq.synthesis.mix import kinds
from vitdfq.synthesis.resolve import parts_of
from vitdfq.training.activation_memory import training_bytes_per_image

IMAGES_OF = {"imagenet-1k": 50_000, "zoo:fashion-mnist": 10_000}
SIDES = {"zoo:fashion-mnist": (28, 28)}  # of an encoded image; others are like ImageNet's
LOOKED_AT = MOST_HELD_OUT + PAINTED  # images of one look of the guard
SEARCHED = 4.0  # passes that the search for a range takes on top of the pass itself, an image
COPIES = 6  # of the largest activation while its range is searched


@dataclass(frozen=True)
class Forecast:
    """Seconds, and the most bytes held, of each stage."""

    seconds: dict[str, float]
    peak_bytes: dict[str, int]


@dataclass(frozen=True)
class Costs:
    """Seconds, an image where it depends on images."""

    teacher: float
    student: float
    learning: float
    observing: float  # whole, on the probe's images
    rounding: float  # whole
    shown: int  # the probe's images


@dataclass(frozen=True)
class Options:
    """What synthesis is asked for, defaults filled in."""

    num_images: int
    batch_size: int
    method: Method


def forecast(recipe: Recipe, teacher: nn.Module, prepared: nn.Module, student: nn.Module, method: Method) -> Forecast:
    """Probe the models of a recipe (any weights) on their device; the student's quantizers are fitted on noise."""
    defaults = {key: value.default for key, value in inspect.signature(synthesize).parameters.items()} | recipe.synthesize
    options = Options(defaults["num_images"], defaults["batch_size"], method)
    batch_size = inspect.signature(evaluate).parameters["batch_size"].default
    images = timing.noise(teacher, timing.enough(teacher, options.batch_size))
    observing = timing.fitted(student, prepared, images)
    costs = Costs(
        teacher=timing.pass_cost(teacher, images),
        student=timing.pass_cost(student, images),
        learning=timing.learning_cost(student, prepared, images),
        observing=observing,
        rounding=timing.rounding_cost(student),
        shown=len(images),
    )
    students = 1 + len(recipe.baselines)
    others = [parts_of(METHODS[name]) for name in recipe.baselines]
    seconds = {
        "synthesize": sum(_synthesis(teacher, options, parts, len(images)) for parts in (parts_of(method), *others)),
        "calibrate": students * _calibration(recipe, student, costs, options.num_images),
        "evaluate": _evaluation(recipe, teacher, costs, students),
    }
    base = timing.memory_used(images.device)
    largest = 4 * timing.widest(student)
    peaks = {
        "synthesize": _synthesis_bytes(teacher, options, len(images)),
        "calibrate": _calibration_bytes(
            recipe, student, training_bytes_per_image(student, images[:1]), largest, options.num_images
        ),
        "evaluate": 2 * largest * recipe.evaluate.get("batch_size", batch_size),
    }
    return Forecast(seconds, {stage: base + more for stage, more in peaks.items()})


def _synthesis(teacher: nn.Module, options: Options, parts: dict[str, Method], shown: int) -> float:
    order, total = kinds(options.num_images, next(iter(parts.values())).mix), 0.0
    for kind, part in parts.items():
        if part.steps:
            cost = timing.synthesis_cost(teacher, part, shown)
            total += cost.start + cost.view * timing.moved(part, order.count(kind)) * part.steps * (1 + _crops(part))
    return total


def _crops(method: Method) -> float:
    """An image is shown whole and, on average, in so many crops."""
    return sum(range(2, method.max_regions + 1)) / method.max_regions


def _synthesis_bytes(teacher: nn.Module, options: Options, shown: int) -> int:
    """Beyond what the probe's images took."""
    needs = [0]
    for part in parts_of(options.method).values():
        if part.steps:
            views = min(options.batch_size, round(options.num_images * max(1.0, _crops(part))))  # in one pass
            more = timing.moved(part, views) - timing.moved(part, shown)
            needs.append(max(0, more) * timing.synthesis_bytes(teacher, part))
    return max(needs)


def _calibration(recipe: Recipe, student: nn.Module, costs: Costs, num_images: int) -> float:
    total = 0.0
    for name, options in _steps(recipe, student):
        total += PASSES[name](costs, min(options.get("num_images", num_images), num_images), options, len(units(student)))
    return total


def _steps(recipe: Recipe, student: nn.Module) -> list[tuple[str, dict[str, Any]]]:
    """The steps of calibration with all their options."""
    found = check_steps(student, recipe.calibrate.get("steps"))
    known = {name: inspect.signature(STEPS[name]).parameters for name, _ in found}
    return [(name, {key: own.default for key, own in known[name].items()} | given) for name, given in found]


def _float_passes(costs: Costs, count: int, options: dict[str, Any], num_units: int) -> float:
    return costs.teacher * count


def _center(costs: Costs, count: int, options: dict[str, Any], num_units: int) -> float:
    trials = 2 * (_observe(costs, min(count, 32), options, num_units) + LOOKED_AT * costs.student)
    return 3 * count * costs.teacher + (trials if options["guarded"] else 0.0)


def _observe(costs: Costs, count: int, options: dict[str, Any], num_units: int) -> float:
    return costs.observing + (1 + SEARCHED) * costs.student * max(0, count - costs.shown)


def _gptq(costs: Costs, count: int, options: dict[str, Any], num_units: int) -> float:
    return costs.rounding + 4 * costs.student * count  # up to each of a block's linear layers, and second moments


def _reconstruct(costs: Costs, count: int, options: dict[str, Any], num_units: int) -> float:
    trained = costs.learning * options["iterations"] * min(options["batch_size"], count)
    return trained + (1 + num_units) * LOOKED_AT * costs.student


def _correct_bias(costs: Costs, count: int, options: dict[str, Any], num_units: int) -> float:
    return (costs.teacher + costs.student) * count


def _distill(costs: Costs, count: int, options: dict[str, Any], num_units: int) -> float:
    trained = costs.learning * options["iterations"] * min(options["batch_size"], count)
    return trained + (1 + CHECKS) * LOOKED_AT * costs.student


PASSES: dict[str, Callable[[Costs, int, dict[str, Any], int], float]] = {
    "equalize": _float_passes,
    "reparameterize": _float_passes,
    "center": _center,
    "observe": _observe,
    "gptq": _gptq,
    "reconstruct": _reconstruct,
    "correct_bias": _correct_bias,
    "distill": _distill,
}


def _calibration_bytes(recipe: Recipe, student: nn.Module, held: int, largest: int, num_images: int) -> int:
    parameters = 4 * sum(parameter.numel() for parameter in student.parameters())
    peak = 0
    for name, options in _steps(recipe, student):
        if "iterations" in options:  # gradients, Adam's two moments, the start and the best
            at_once, share = min(options["batch_size"], num_images), len(units(student))
            if name == "distill":
                at_once, share = max(1, min(at_once // SHARDS, SHARD_BYTES // held)), 1
            peak = max(peak, 5 * parameters // share + at_once * held // share)
        else:
            peak = max(peak, COPIES * largest * min(options["num_images"], num_images, 32 if name == "gptq" else num_images))
    return peak


def _evaluation(recipe: Recipe, teacher: nn.Module, costs: Costs, students: int) -> float:
    dataset = recipe.evaluate.get("dataset", "imagenet-1k")
    count = recipe.evaluate.get("num_images") or IMAGES_OF.get(dataset, 50_000)
    encoded = io.BytesIO()
    Image.effect_noise(SIDES.get(dataset, (500, 375)), 64).convert("RGB").save(encoded, format="JPEG")
    transform = transform_of(teacher)
    decoding = timing.typical(lambda: transform(Image.open(io.BytesIO(encoded.getvalue())).convert("RGB")))
    workers = max(1, torch.get_num_threads())  # beside the model's own work
    return count * (costs.teacher + students * costs.student + (1 + students) * decoding / workers)
