"""`vitdfq bench`: the speed of a recipe's models and steps on this machine, with random weights, which do not change speed.

A finished run in place of a recipe is measured by `deployment.py`.
"""

import statistics
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq.common.errors import InputError
from vitdfq.cost import timing
from vitdfq.cost.deployment import BATCHES, batch_sizes, benchmark_run, deployment_table
from vitdfq.models import gives
from vitdfq.preparation.prepare import prepared_copy
from vitdfq.quantization import quantize
from vitdfq.quantization.integer import to_integer
from vitdfq.quantization.modules import title_of
from vitdfq.recipe import Recipe, load_recipe
from vitdfq.recipe.teacher import load_section
from vitdfq.runtime import distributed
from vitdfq.synthesis import METHODS, Method, TeacherFacts
from vitdfq.synthesis.resolve import parts_of
from vitdfq.synthesis.without_classes import with_possible_mix

ROUNDS = 5
MAX_BATCH = 32  # images


def benchmark_target(target: str, overrides: list[str], batches: str | None = None) -> dict[str, Any]:
    """Measure a run (a folder) by `benchmark_run`, or a recipe (a YAML file, or a name) by `benchmark`.

    Args:
        target: the folder, file or name.
        overrides: `section.key=value` texts, for a recipe alone.
        batches: sizes such as "1,8,32", for a run alone; None: these.

    Raises:
        InputError: an argument that does not go with the target, or batches that are no numbers.
        VitdfqError: as `load`, or `load_recipe`.
    """
    if Path(target).is_dir():
        if overrides:
            raise InputError(f"{target} is a run: --set changes a recipe")
        return benchmark_run(target, batch_sizes(batches or BATCHES))
    if batches is not None:
        raise InputError(f"--batches goes with a run, and {target} is not a folder; a recipe is measured at a batch of its own")
    return benchmark(load_recipe(target, overrides))


def benchmark(recipe: Recipe) -> dict[str, Any]:
    """Measure the forward passes of teacher and student, a step of synthesis and a step of training.

    Returns:
        "model", "bits", "device", "threads", "batch_size".
        "forward": {form: {"images_per_second", "speedup"}}, the speedup over the float32 teacher.
        "synthesis": {method: {"image_steps_per_second", "of_bare_step"}}, the last a step's time as a share of a bare forward
            and backward pass to the pixels.
        "training": {"images_per_second", "gptq_seconds"}.
        "peak_bytes".
    """
    model: dict[str, Any] = recipe.model | {"pretrained": False}
    teacher = load_section(model).to(distributed.start())
    prepared = prepared_copy(teacher, **recipe.prepare)
    student = quantize(prepared, **recipe.quantize)
    images = timing.noise_images(teacher, timing.probe_size(teacher, MAX_BATCH))
    timing.fit_quantizers(student, prepared, images)
    return {
        "model": recipe.model["name"],
        "bits": title_of(student),
        "device": torch.cuda.get_device_name() if images.is_cuda else timing.processor_name(),
        "threads": torch.get_num_threads(),
        "batch_size": len(images),
        "forward": _forward(teacher, student, images),
        "synthesis": _synthesis(recipe, teacher, images),
        "training": {
            "images_per_second": 1 / timing.training_cost(student, prepared, images),
            "gptq_seconds": timing.rounding_cost(student),
        },
        "peak_bytes": timing.peak_memory(images.device),
    }


def _forward(teacher: nn.Module, student: nn.Module, images: Tensor) -> dict[str, dict[str, float]]:
    """Time each form once a round, rather than one form after the other, so that other load on the machine slows all alike."""
    half, half_images, integer = deepcopy(teacher).bfloat16(), images.bfloat16(), to_integer(student)
    forms: dict[str, Callable[[], Tensor]] = {
        "float32 teacher": lambda: teacher(images),
        "bfloat16 teacher": lambda: half(half_images),
        "student, simulated": lambda: student(images),
        "student, integer": lambda: integer(images),
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    with torch.no_grad():
        for _ in range(1 + ROUNDS):  # the first round warms up
            for name, run in forms.items():
                seconds[name].append(timing.timed(run))
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    base = medians["float32 teacher"]
    return {name: {"images_per_second": len(images) / median, "speedup": base / median} for name, median in medians.items()}


def _synthesis(recipe: Recipe, teacher: nn.Module, images: Tensor) -> dict[str, dict[str, float]]:
    """Time a step on whole images with all patches, for each preset that optimizes images of the recipe."""
    options = recipe.synthesis
    parts = parts_of(with_possible_mix(options.resolved(), TeacherFacts.of(teacher)))
    methods: dict[str, Method] = {kind if kind in METHODS else options.method: part for kind, part in parts.items() if part.steps}

    def bare() -> None:
        pixels = images.clone().requires_grad_()
        outputs = teacher(pixels)
        if gives(teacher) == "classes":
            loss = F.cross_entropy(outputs, torch.zeros(len(images), dtype=torch.long, device=images.device))
        else:
            loss = outputs.square().mean()
        loss.backward()

    bare_step = timing.median_seconds(bare) / len(images)
    views = {name: timing.synthesis_cost(teacher, method, len(images)).view for name, method in methods.items()}
    return {name: {"image_steps_per_second": 1 / view, "of_bare_step": view / bare_step} for name, view in views.items()}


def benchmark_table(results: dict[str, Any]) -> Table | Group:
    """The results of `benchmark_target` as a table."""
    if "deploy" in results:
        return deployment_table(results)
    title = "{model}, {bits}, batch of {batch_size}, {device}, {threads} threads".format(**results)
    table = Table("what", "a second", "against", title=title, title_justify="left")
    for name, speed in results["forward"].items():
        table.add_row(f"forward: {name}", f"{speed['images_per_second']:.1f} images", f"{speed['speedup']:.2f} x float32")
    for name, speed in results["synthesis"].items():
        rate, share = speed["image_steps_per_second"], speed["of_bare_step"]
        table.add_row(f"synthesis: {name}", f"{rate:.1f} images x steps", f"{share:.2f} of a bare step's time")
    training = results["training"]
    table.add_row("training of the student", f"{training['images_per_second']:.1f} images", "")
    table.add_row("gptq, rounding all layers", f"{training['gptq_seconds']:.1f} s in all", "")
    table.add_row("peak memory", f"{results['peak_bytes'] / 1e9:.2f} GB", "")
    return table
