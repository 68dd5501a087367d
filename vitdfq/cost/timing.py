"""Timings and memory of short runs: the basis of `--dry-run`'s forecast and of `vitdfq bench`."""

import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration import calibrate
from vitdfq.calibration.gptq import fit_and_round
from vitdfq.models import image_size
from vitdfq.quantization.modules import QuantLinear, weighted_modules
from vitdfq.runtime.progress import quiet
from vitdfq.runtime.run import Run
from vitdfq.synthesis import Method, TeacherFacts, synthesize
from vitdfq.synthesis.generator.train import GROUP_SIZE
from vitdfq.synthesis.resolve import ENGINES
from vitdfq.training.activation_memory import bytes_saved_for_backward
from vitdfq.training.output_distance import output_distance, run_to_outputs
from vitdfq.training.trainable import trainable

MIN_IMAGES, PASS_SECONDS = 2, 0.3  # images of a timing: as many as pass in so many seconds, and not fewer
PROBE_STEPS = (1, 3)  # of a synthesis; the difference is steps alone


@dataclass(frozen=True)
class StepCost:
    """Of a synthesis."""

    start: float  # seconds before the first step
    view: float  # seconds a step for one whole image; a generator's: for one sample


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one call, to the end of what it started on the device."""
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def typical(run: Callable[[], Any], times: int = 3) -> float:
    """Median seconds of a few calls, after one that warms up."""
    run()
    return statistics.median(timed(run) for _ in range(times))


def noise(teacher: nn.Module, count: int) -> Tensor:
    """Images (count, 3, H, W) on the teacher's device."""
    return synthesize(teacher, method="noise", num_images=count).to(next(teacher.parameters()))


def enough(model: nn.Module, batch_size: int) -> int:
    """The number of images of a timing: few for a large model; a batch for a small one, whose calls cost more than its images."""
    images = noise(model, 1)
    with torch.no_grad():
        return min(batch_size, max(MIN_IMAGES, int(PASS_SECONDS / typical(lambda: model(images), times=1))))


def synthesis_cost(teacher: nn.Module, method: Method, count: int) -> StepCost:
    """Time a few steps of a method on `count` images; see `run_steps`."""
    first, last = PROBE_STEPS
    run_steps(teacher, method, first, count)
    short, long = (timed(lambda steps=steps: run_steps(teacher, method, steps, count)) for steps in PROBE_STEPS)
    step = max(long - short, short / 10) / (last - first)
    return StepCost(max(0.0, short - first * step), step / images_per_step(method, count))


def run_steps(teacher: nn.Module, method: Method, steps: int, count: int) -> None:
    """A few steps of a method on `count` images, without crops and with all patches, silently."""
    short = replace(method, steps=steps, max_regions=1, prune_at=())
    with quiet(), torch.enable_grad():
        ENGINES[method.engine](teacher, TeacherFacts.of(teacher), short, num_images=count, batch_size=count, seed=0, run=Run())


def images_per_step(method: Method, count: int) -> int:
    """Images that one step updates when `count` are synthesized: a generator makes a batch a step, however many."""
    return method.group_size or GROUP_SIZE if method.engine == "generator" else count


def pass_cost(model: nn.Module, images: Tensor) -> float:
    """Seconds of a forward pass, for each image."""
    with torch.no_grad():
        return typical(lambda: model(images)) / len(images)


def fit_quantizers(student: nn.Module, prepared: nn.Module, images: Tensor) -> float:
    """Fit the student's quantizers; seconds."""
    with quiet():
        return timed(lambda: calibrate(student, prepared, images, steps=["observe"]))


def training_cost(student: nn.Module, prepared: nn.Module, images: Tensor) -> float:
    """Seconds of a training step without the optimizer, for each image: both models forward, the student backward."""
    with trainable([student]):

        def step() -> None:
            with torch.no_grad():
                target = run_to_outputs(prepared, images)
            output_distance(run_to_outputs(student, images), target).backward()

        return typical(step, times=2) / len(images)


def rounding_cost(student: nn.Module) -> float:
    """Seconds in which GPTQ rounds all linear layers, whatever the images: each shape is tried once."""
    layers = [part for part in weighted_modules(student) if isinstance(part, QuantLinear)]
    quantized = [layer for layer in layers if not isinstance(layer.weight_quantizer, nn.Identity)]
    shapes = Counter(layer.weight.shape for layer in quantized)
    total = 0.0
    for shape, count in shapes.items():
        layer = deepcopy(next(layer for layer in quantized if layer.weight.shape == shape))
        rows = torch.randn(2 * shape[1], shape[1], device=layer.weight.device)
        total += count * timed(lambda layer=layer, rows=rows: fit_and_round(layer, rows.T @ rows / len(rows), 0.01))
    return total


def synthesis_bytes(teacher: nn.Module, method: Method) -> int:
    """Bytes that one whole image keeps for the backward pass of one step of a method."""
    return bytes_saved_for_backward(lambda: run_steps(teacher, method, steps=1, count=1), teacher) // images_per_step(method, 1)


def widest(model: nn.Module) -> int:
    """Values in the largest output of a module for one image."""
    largest = 0

    def look(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel())

    hooks = [part.register_forward_hook(look) for part in model.modules()]
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, *image_size(model), device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def memory_used(device: torch.device) -> int:
    """Peak bytes of this process so far, on the device that computes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
