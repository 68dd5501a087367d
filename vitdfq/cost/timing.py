"""Time and memory of short runs: the basis of the estimate of `--dry-run` and of `vitdfq bench`."""

import gc
import platform
import resource
import statistics
import sys
import time
import timeit
from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration import calibrate
from vitdfq.calibration.distill import loss_gradients
from vitdfq.calibration.gptq import fit_and_round, is_rounded
from vitdfq.common.precision import PRECISIONS, fastest_precision
from vitdfq.models import image_size
from vitdfq.models.record import hooked
from vitdfq.quantization.modules import weighted_modules
from vitdfq.runtime.progress import quiet
from vitdfq.runtime.run import Run
from vitdfq.synthesis import Method, TeacherFacts, synthesize
from vitdfq.synthesis.generator.train import GROUP_SIZE
from vitdfq.synthesis.resolve import ENGINES
from vitdfq.training.activation_memory import bytes_saved_for_backward
from vitdfq.training.trainable import trainable

MIN_IMAGES, PASS_SECONDS = 2, 0.3  # a timing uses as many images as pass in PASS_SECONDS, at least MIN_IMAGES
REPETITIONS = 3  # of a timed call
PROBE_STEPS = (1, 3)  # of two short syntheses; their difference in time is that of the steps alone


@dataclass(frozen=True)
class StepCost:
    """Seconds of a synthesis."""

    start: float  # before the first step
    view: float  # of a step, for one whole image; of a generator's step, for one sample


@dataclass(frozen=True)
class ImageTime:
    """Milliseconds of one image of a batch."""

    ms: float  # that pass by the clock
    processor_ms: float  # of all threads together


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one call, device work included.

    `torch.utils.benchmark` would do the same, but makes a long call at least twice, and its import prints a warning on stderr
    where a CUDA toolkit is installed without a GPU.
    """

    def run_and_wait() -> None:
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return timeit.timeit(run_and_wait, setup=gc.enable, number=1)  # timeit disables garbage collection by itself


def median_seconds(run: Callable[[], Any]) -> float:
    """Median seconds of repeated calls, after one that warms up."""
    run()
    return statistics.median(timed(run) for _ in range(REPETITIONS))


@torch.inference_mode()
def least_times(forms: Mapping[str, Callable[[Tensor], Any]], images: Tensor, turns: int) -> dict[str, ImageTime]:
    """The least times of each form on the images (B, 3, H, W), on the CPU, over several turns after one that warms up.

    The forms run in turn, so that other load on the machine slows all alike; it disturbs processor time least.
    """
    least = dict.fromkeys(forms, ImageTime(float("inf"), float("inf")))
    for turn in range(1 + turns):
        for name, run in forms.items():
            start, processor_start = time.perf_counter(), time.process_time()
            run(images)
            ms = 1e3 * (time.perf_counter() - start) / len(images)
            processor_ms = 1e3 * (time.process_time() - processor_start) / len(images)
            if turn:
                least[name] = ImageTime(min(least[name].ms, ms), min(least[name].processor_ms, processor_ms))
    return least


def autocast_bfloat16(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model under autocast on the CPU."""

    def run(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(images)

    return run


def in_bfloat16(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A copy of the model with weights and activations in bfloat16: autocast rounds the weights again at every pass."""
    copy = deepcopy(model).bfloat16()
    return lambda images: copy(images.bfloat16())


def processor_name() -> str:
    """The name of this machine's processor, where the system has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def noise_images(teacher: nn.Module, count: int) -> Tensor:
    """Images (count, 3, H, W) of the method "noise", on the teacher's device."""
    return synthesize(teacher, method="noise", num_images=count).to(next(teacher.parameters()))


def probe_size(model: nn.Module, batch_size: int) -> int:
    """The number of images of a timing: few for a large model, up to `batch_size` for a small one.

    A small model needs many, since the overhead of a call hides the cost of an image.
    """
    images = noise_images(model, 1)
    with torch.no_grad():
        return min(batch_size, max(MIN_IMAGES, int(PASS_SECONDS / median_seconds(lambda: model(images)))))


def synthesis_cost(teacher: nn.Module, method: Method, count: int) -> StepCost:
    """The cost of a method's steps on `count` images, from two short runs (`run_steps`) after one that warms up."""
    first, last = PROBE_STEPS
    run_steps(teacher, method, first, count)
    short, long = (timed(lambda steps=steps: run_steps(teacher, method, steps, count)) for steps in PROBE_STEPS)
    step = max(long - short, short / 10) / (last - first)
    return StepCost(max(0.0, short - first * step), step / images_per_step(method, count))


def run_steps(teacher: nn.Module, method: Method, steps: int, count: int) -> None:
    """Run a few steps of a method on `count` images, without crops and with all patches, silently."""
    short = replace(method, steps=steps, max_regions=1, prune_at=())
    with quiet(), torch.enable_grad():
        ENGINES[method.engine](teacher, TeacherFacts.of(teacher), short, num_images=count, batch_size=count, seed=0, run=Run())


def images_per_step(method: Method, count: int) -> int:
    """Images that one step updates when `count` are synthesized. A step of a generator makes one batch, whatever the count."""
    return method.group_size or GROUP_SIZE if method.engine == "generator" else count


def pass_cost(model: nn.Module, images: Tensor) -> float:
    """Seconds of a forward pass, for each image."""
    with torch.no_grad():
        return median_seconds(lambda: model(images)) / len(images)


def fit_quantizers(student: nn.Module, prepared: nn.Module, images: Tensor) -> float:
    """Fit the student's quantizers on these images; return the seconds."""
    with quiet():
        return timed(lambda: calibrate(student, prepared, images, steps=["observe"]))


def training_cost(student: nn.Module, prepared: nn.Module, images: Tensor, precision: str | None = None) -> float:
    """Seconds of a step of `distill` without views and optimizer, for each image; `precision` as of `DistillOptions`."""
    dtype = PRECISIONS[precision or fastest_precision(images.device)]
    with trainable([student]) as parameters:
        arguments = student, prepared, images, parameters.weights, dtype, len(images), Run()
        return median_seconds(lambda: loss_gradients(*arguments)) / len(images)


def rounding_cost(student: nn.Module) -> float:
    """Seconds of GPTQ's rounding of all layers. It does not depend on the images; each shape of layer is timed once."""
    layers = [part for part in weighted_modules(student) if is_rounded(part)]
    shapes = Counter(layer.weight.shape for layer in layers)
    total = 0.0
    for shape, count in shapes.items():
        layer = deepcopy(next(layer for layer in layers if layer.weight.shape == shape))
        inputs = shape[1:].numel()
        rows = torch.randn(2 * inputs, inputs, device=layer.weight.device)
        total += count * timed(lambda layer=layer, rows=rows: fit_and_round(layer, rows.T @ rows / len(rows), 0.01))
    return total


def synthesis_bytes(teacher: nn.Module, method: Method) -> int:
    """Bytes that one step of a method keeps for its backward pass, for each whole image."""
    return bytes_saved_for_backward(lambda: run_steps(teacher, method, steps=1, count=1), teacher) // images_per_step(method, 1)


def largest_output(model: nn.Module) -> int:
    """Number of values in the largest output of a module, for one image."""
    largest = 0

    def update(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel())

    with torch.no_grad(), hooked(part.register_forward_hook(update) for part in model.modules()):
        model(torch.zeros(1, 3, *image_size(model), device=next(model.parameters()).device))
    return largest


def peak_memory(device: torch.device) -> int:
    """Peak bytes of this process so far, in the memory of its compute device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
