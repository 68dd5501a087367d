"""`vitdfq bench`: what a recipe's models and steps cost on this machine, measured in turn; random weights cost the same."""

import platform
import statistics
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq.cost import timing
from vitdfq.models import load_teacher
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize
from vitdfq.quantization.integer import to_integer
from vitdfq.quantization.modules import bits_of
from vitdfq.recipe import Recipe
from vitdfq.runtime import distributed
from vitdfq.synthesis import METHODS, Method
from vitdfq.synthesis.resolve import method_of, parts_of

ROUNDS = 5
MOST = 32  # images in a batch


def bench(recipe: Recipe) -> dict[str, Any]:
    """Measure the forward passes of teacher and student, a step of synthesis and a step of training.

    Returns:
        "model", "bits", "device", "threads", "batch_size"; "forward": {form: {"images_per_second", "speedup"}} against
        the float32 teacher in the same rounds; "synthesis": {method: {"image_steps_per_second", "of_bare_step"}} against
        a bare forward and backward to the pixels; "training": {"images_per_second", "gptq_seconds"}; "peak_bytes".
    """
    teacher = load_teacher(**recipe.model | {"pretrained": False}).to(distributed.start())
    prepared = prepare(teacher, **recipe.prepare)
    student = quantize(prepared, **recipe.quantize)
    images = timing.noise(teacher, timing.enough(teacher, MOST))
    timing.fit_quantizers(student, prepared, images)
    return {
        "model": recipe.model["name"],
        "bits": "W{weight_bits}A{activation_bits}".format(**bits_of(student)),
        "device": torch.cuda.get_device_name() if images.is_cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "batch_size": len(images),
        "forward": _forward(teacher, student, images),
        "synthesis": _synthesis(recipe, teacher, images),
        "training": {
            "images_per_second": 1 / timing.training_cost(student, prepared, images),
            "gptq_seconds": timing.rounding_cost(student),
        },
        "peak_bytes": timing.memory_used(images.device),
    }


def _forward(teacher: nn.Module, student: nn.Module, images: Tensor) -> dict[str, dict[str, float]]:
    """Each form in turn, so that a busy moment hits all of them."""
    half, half_images, integer = deepcopy(teacher).bfloat16(), images.bfloat16(), to_integer(student)
    forms: dict[str, Callable[[], Tensor]] = {
        "float32 teacher": lambda: teacher(images),
        "bfloat16 teacher": lambda: half(half_images),
        "student, simulated": lambda: student(images),
        "student, integer": lambda: integer(images),
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    with torch.no_grad():
        for _ in range(1 + ROUNDS):  # the first warms up
            for name, run in forms.items():
                seconds[name].append(timing.timed(run))
    typical = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    base = typical["float32 teacher"]
    return {name: {"images_per_second": len(images) / own, "speedup": base / own} for name, own in typical.items()}


def _synthesis(recipe: Recipe, teacher: nn.Module, images: Tensor) -> dict[str, dict[str, float]]:
    """A step on whole images with all their patches, of each preset that makes some."""
    asked = {"method": "sardfq"} | recipe.synthesize
    parts = parts_of(method_of(asked))
    named: dict[str, Method] = {kind if kind in METHODS else asked["method"]: part for kind, part in parts.items() if part.steps}

    def bare() -> None:
        pixels = images.clone().requires_grad_()
        F.cross_entropy(teacher(pixels), torch.zeros(len(images), dtype=torch.long, device=images.device)).backward()

    bare_step = timing.typical(bare) / len(images)
    views = {name: timing.synthesis_cost(teacher, part, len(images)).view for name, part in named.items()}
    return {name: {"image_steps_per_second": 1 / view, "of_bare_step": view / bare_step} for name, view in views.items()}


def table(found: dict[str, Any]) -> Table:
    """For people."""
    head = "{model}, {bits}, batch of {batch_size}, {device}, {threads} threads".format(**found)
    shown = Table("what", "a second", "against", title=head, title_justify="left")
    for name, own in found["forward"].items():
        shown.add_row(f"forward: {name}", f"{own['images_per_second']:.1f} images", f"{own['speedup']:.2f} x float32")
    for name, own in found["synthesis"].items():
        rate, share = own["image_steps_per_second"], own["of_bare_step"]
        shown.add_row(f"synthesis: {name}", f"{rate:.1f} images x steps", f"{share:.2f} of a bare step's time")
    training = found["training"]
    shown.add_row("training of the student", f"{training['images_per_second']:.1f} images", "")
    shown.add_row("gptq, rounding all layers", f"{training['gptq_seconds']:.1f} s in all", "")
    shown.add_row("peak memory", f"{found['peak_bytes'] / 1e9:.2f} GB", "")
    return shown
