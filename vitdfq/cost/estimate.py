"""An estimate of a recipe's cost on this machine: short timings of its models, times the number of passes of each stage."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn

from vitdfq.calibration.calibrate import check_steps
from vitdfq.calibration.distill import MIN_SHARDS, NUM_CHECKS, SHARD_BYTES
from vitdfq.calibration.held_out import MAX_HELD_OUT, NUM_PROCEDURAL
from vitdfq.cost import timing
from vitdfq.data import Classes, is_local, load_labeled, transform_of
from vitdfq.evaluation import EvaluationOptions
from vitdfq.models import gives, units
from vitdfq.recipe import Recipe
from vitdfq.synthesis import METHODS, Method, TeacherFacts
from vitdfq.synthesis.mix import kinds
from vitdfq.synthesis.resolve import parts_of
from vitdfq.synthesis.without_classes import with_possible_mix
from vitdfq.training.activation_memory import training_bytes_per_image

NUM_TEST_IMAGES = {"imagenet-1k": 50_000, "zoo:fashion-mnist": 10_000}
NUM_TRAIN_IMAGES = 1_281_167  # of ImageNet-1k
IMAGE_SIZES = {"zoo:fashion-mnist": (28, 28)}  # (width, height) of an encoded image
IMAGENET_SIZE = (500, 375)  # typical; taken for every other data set
VALIDATION_IMAGES = MAX_HELD_OUT + NUM_PROCEDURAL  # images of one validation on held-out images
SEARCH_PASSES = 4.0  # time of the search for a range, in forward passes of an image, beside the pass itself
COPIES = 6  # copies of the largest activation while its range is searched


@dataclass(frozen=True)
class CostEstimate:
    """Seconds and peak bytes by stage."""

    seconds: dict[str, float]
    peak_bytes: dict[str, int]


@dataclass(frozen=True)
class Costs:
    """Measured seconds."""

    teacher: float  # of a forward pass, for each image
    student: float  # of a forward pass, for each image
    training: float  # of a step of `distill`, or of `reconstruct`, without the optimizer, for each image
    observe: float  # of the step `observe` on `probe_images` images
    rounding: float  # of GPTQ's rounding of all layers
    probe_images: int


@dataclass(frozen=True)
class Options:
    """The size of a synthesis and its method, resolved for the teacher."""

    num_images: int
    batch_size: int
    method: Method


def estimate_cost(
    recipe: Recipe, teacher: nn.Module, prepared: nn.Module, student: nn.Module, method: Method, num_evaluated: int
) -> CostEstimate:
    """Time the models of a recipe on their device, and estimate each stage.

    Args:
        recipe: a checked recipe.
        teacher, prepared, student: its models, with any weights; the student's quantizers are fitted on noise.
        method: of the synthesis, resolved for the teacher.
        num_evaluated: see `evaluated_images`.
    """
    synthesis, evaluation = recipe.synthesis, recipe.evaluation
    options = Options(synthesis.num_images, synthesis.batch_size, method)
    images = timing.noise_images(teacher, timing.probe_size(teacher, options.batch_size))
    observe = timing.fit_quantizers(student, prepared, images)
    costs = Costs(
        teacher=timing.pass_cost(teacher, images),
        student=timing.pass_cost(student, images),
        training=timing.training_cost(student, prepared, images, _training_precision(recipe, student)),
        observe=observe,
        rounding=timing.rounding_cost(student),
        probe_images=len(images),
    )
    is_evaluated = evaluation.dataset_of(teacher) is not None
    names = recipe.baselines if is_evaluated else []  # they are made for their scores
    facts = TeacherFacts.of(teacher)
    students, baselines = 1 + len(names), [parts_of(with_possible_mix(METHODS[name], facts)) for name in names]
    seconds = {
        "synthesize": sum(_synthesis(teacher, options, parts, len(images)) for parts in (parts_of(method), *baselines)),
        "calibrate": students * _calibration(recipe, student, costs, options.num_images),
        "evaluate": _evaluation(evaluation, teacher, costs, students, num_evaluated + neighbors(evaluation, teacher)),
    }
    base = timing.peak_memory(images.device)
    largest = 4 * timing.largest_output(student)
    peaks = {
        "synthesize": _synthesis_bytes(teacher, options, len(images)),
        "calibrate": _calibration_bytes(
            recipe, student, training_bytes_per_image(student, images[:1]), largest, options.num_images
        ),
        "evaluate": 2 * largest * evaluation.batch_size * is_evaluated,
    }
    return CostEstimate(seconds, {stage: base + peak for stage, peak in peaks.items()})


def _synthesis(teacher: nn.Module, options: Options, parts: dict[str, Method], probe_images: int) -> float:
    order, total = kinds(options.num_images, next(iter(parts.values())).mix), 0.0
    for kind, part in parts.items():
        if part.steps:
            cost = timing.synthesis_cost(teacher, part, probe_images)
            total += cost.start + cost.view * timing.images_per_step(part, order.count(kind)) * part.steps * (1 + _crops(part))
    return total


def _crops(method: Method) -> float:
    """The mean number of crops of an image, not counting the whole image."""
    return sum(range(2, method.max_regions + 1)) / method.max_regions


def _synthesis_bytes(teacher: nn.Module, options: Options, probe_images: int) -> int:
    """Bytes that a synthesis needs in addition to those that the timings with `probe_images` images have used."""
    additional = [0]
    for part in parts_of(options.method).values():
        if part.steps:
            views = min(options.batch_size, round(options.num_images * max(1.0, _crops(part))))  # in one pass
            images = timing.images_per_step(part, views) - timing.images_per_step(part, probe_images)
            additional.append(max(0, images) * timing.synthesis_bytes(teacher, part))
    return max(additional)


def _calibration(recipe: Recipe, student: nn.Module, costs: Costs, num_images: int) -> float:
    total = 0.0
    for name, options in check_steps(student, **recipe.calibrate):
        count = min(getattr(options, "num_images", num_images), num_images)
        total += PASSES[name](costs, count, options, len(units(student)))
    return total


def _training_precision(recipe: Recipe, student: nn.Module) -> str | None:
    """The precision of `distill`; without it, that of `reconstruct`, which has no choice."""
    steps = check_steps(student, **recipe.calibrate)
    return next((options.precision for name, options in steps if name == "distill"), "float32")


def _float_passes(costs: Costs, count: int, options: Any, num_units: int) -> float:
    return costs.teacher * count


def _center(costs: Costs, count: int, options: Any, num_units: int) -> float:
    trials = 2 * (_observe(costs, min(count, 32), options, num_units) + VALIDATION_IMAGES * costs.student)
    return 3 * count * costs.teacher + (trials if options.guarded else 0.0)


def _observe(costs: Costs, count: int, options: Any, num_units: int) -> float:
    return costs.observe + (1 + SEARCH_PASSES) * costs.student * max(0, count - costs.probe_images)


def _gptq(costs: Costs, count: int, options: Any, num_units: int) -> float:
    return costs.rounding + 4 * costs.student * count  # a block is run once for each of its linear layers


def _reconstruct(costs: Costs, count: int, options: Any, num_units: int) -> float:
    trained = costs.training * options.iterations * min(options.batch_size, count)
    return trained + (1 + num_units) * VALIDATION_IMAGES * costs.student


def _correct_bias(costs: Costs, count: int, options: Any, num_units: int) -> float:
    return (costs.teacher + costs.student) * count


def _distill(costs: Costs, count: int, options: Any, num_units: int) -> float:
    trained = costs.training * options.iterations * min(options.batch_size, count)
    return trained + (1 + NUM_CHECKS) * VALIDATION_IMAGES * costs.student


PASSES: dict[str, Callable[[Costs, int, Any, int], float]] = {
    "equalize": _float_passes,
    "equalize_values": _float_passes,
    "reparameterize": _float_passes,
    "center": _center,
    "observe": _observe,
    "gptq": _gptq,
    "reconstruct": _reconstruct,
    "correct_bias": _correct_bias,
    "distill": _distill,
}


def _calibration_bytes(recipe: Recipe, student: nn.Module, bytes_per_image: int, largest: int, num_images: int) -> int:
    parameters = 4 * sum(parameter.numel() for parameter in student.parameters())
    peak = 0
    for name, options in check_steps(student, **recipe.calibrate):
        if hasattr(options, "iterations"):  # 5 x parameters: gradients, Adam's moments, the first and the best values
            batch, num_parts = min(options.batch_size, num_images), len(units(student))
            if name == "distill":  # one part: the whole student, a shard of the batch at a time
                batch, num_parts = max(1, min(batch // MIN_SHARDS, SHARD_BYTES // bytes_per_image)), 1
            peak = max(peak, 5 * parameters // num_parts + batch * bytes_per_image // num_parts)
        else:
            peak = max(peak, COPIES * largest * min(options.num_images, num_images, 32 if name == "gptq" else num_images))
    return peak


def evaluated_images(options: EvaluationOptions, teacher: nn.Module) -> tuple[int, bool]:
    """Return how many images are evaluated, and whether that is known; a set of the Hub is taken to be as large as ImageNet's.

    A folder is opened to count its images.

    Raises:
        RecipeError, InputError: the folder cannot be read, as in `load_labeled`.
    """
    dataset = options.dataset_of(teacher)
    if dataset is None:
        return 0, True
    if not is_local(dataset):
        count = options.num_images or NUM_TEST_IMAGES.get(dataset)
        return count or NUM_TEST_IMAGES["imagenet-1k"], count is not None
    classes = Classes.of(teacher) if gives(teacher) == "classes" else None
    labeled = load_labeled(dataset, options.split, classes, **options.reading)
    assert labeled.num_rows is not None, "sets on disk say how many rows they have"
    return min(options.num_images or labeled.num_rows, labeled.num_rows), True


def neighbors(options: EvaluationOptions, teacher: nn.Module) -> int:
    """Return how many images k-NN's neighbors are; a set whose size is not known is taken to be as large as ImageNet's train."""
    dataset, wanted = options.dataset_of(teacher), options.neighbors
    if dataset is None or wanted is None:
        return 0
    name = wanted.dataset or dataset
    if not is_local(name):
        return wanted.num_images or NUM_TRAIN_IMAGES
    labeled = load_labeled(name, wanted.split, None, **options.reading)
    return min(wanted.num_images or labeled.num_rows or NUM_TRAIN_IMAGES, labeled.num_rows or NUM_TRAIN_IMAGES)


def _evaluation(options: EvaluationOptions, teacher: nn.Module, costs: Costs, students: int, count: int) -> float:
    encoded = io.BytesIO()
    Image.effect_noise(IMAGE_SIZES.get(str(options.dataset), IMAGENET_SIZE), 64).convert("RGB").save(encoded, format="JPEG")
    transform = transform_of(teacher)
    decoding = timing.median_seconds(lambda: transform(Image.open(io.BytesIO(encoded.getvalue())).convert("RGB")))
    workers = max(1, torch.get_num_threads())  # they decode while the models compute
    return count * (costs.teacher + students * costs.student + (1 + students) * decoding / workers)
