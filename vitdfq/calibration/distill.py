"""End-to-end distillation: the quantized student is trained to reproduce the float teacher's outputs on synthetic images."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitdfq.calibration.augment import augment
from vitdfq.calibration.cached_activations import device_of
from vitdfq.calibration.held_out import HeldOutValidation, hold_out, worst_ratio
from vitdfq.common.lookup import lookup
from vitdfq.common.options import check_counts, check_rates
from vitdfq.common.precision import PRECISIONS, fastest_precision
from vitdfq.models import units
from vitdfq.quantization.fitted import require_fitted
from vitdfq.runtime.run import Run, Tensors
from vitdfq.training.activation_memory import bytes_saved_for_backward
from vitdfq.training.batch_sharding import sum_gradients
from vitdfq.training.optimizer import AdamWarmupCosine
from vitdfq.training.output_distance import output_distance, run_to_outputs, sizes, stream_distance
from vitdfq.training.trainable import TrainableParameters, finite, retry_with_smaller_lr, trainable

logger = logging.getLogger(__name__)

NUM_CHECKS = 4  # validations during the training
MIN_SHARDS, SHARD_BYTES = 2, 2**31  # shards of a batch, bytes that one shard may save for the backward pass; see `loss_gradients`
STATE = "state"


@dataclass(frozen=True)
class DistillOptions:
    """Options of `distill`.

    Attributes:
        iterations: Adam steps.
        lr: peak learning rate of weights, in quantization steps; a short warm-up and a half-cosine decay to zero.
        scale_lr: peak learning rate of activation scales, as a share of each; 0: scales are not trained.
        batch_size: images in a step.
        precision: of matrix products, "bfloat16" or "float32"; None: the faster one on this hardware. Weights, scales and
            rounding are float32 in both.
        seed: of batches and views, and of the held-out procedural images.

    Raises:
        ValueError: an unknown precision.
    """

    iterations: int = 200
    lr: float = 2e-3
    scale_lr: float = 1e-4
    batch_size: int = 32
    precision: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "iterations", "batch_size")
        check_rates(self, "lr", "scale_lr")
        if self.precision is not None:
            lookup(self.precision, PRECISIONS, "precision")


def distill(
    student: nn.Module, teacher: nn.Module, images: Tensor, options: DistillOptions | None = None, *, run: Run | None = None
) -> None:
    """Train weights, biases and activation scales of the whole student at once, through the rounding (straight-through).

    Unlike block-by-block reconstruction it can compensate for errors of other blocks. Every iteration uses new views of the
    images (`augment`). The student is validated four times on held-out images (`HeldOutValidation`), and the best state remains,
    the initial one included, so that unsuitable images do no harm. The loss is `output_distance` plus `stream_distance`, which
    are this library's own; the validation measures the first.

    Args:
        student: changed in place; its quantizers must be fitted. It is best run after `gptq`.
        teacher: the float model that the student was made from.
        images: (N, 3, H, W).
        options: see `DistillOptions`.
        run: keeps the state at every validation; the processes share every batch.

    Raises:
        ValueError: the quantizers are not fitted; the loss is not finite, at every attempted learning rate.
    """
    options, run = options or DistillOptions(), run or Run()
    require_fitted(student, "distill")
    device = device_of(student)
    dtype = PRECISIONS[options.precision or fastest_precision(device)]
    training_images, held_out_images = hold_out(images)
    validation = HeldOutValidation(teacher, held_out_images, seed=options.seed)
    with trainable([student]) as parameters, run.progress("distill", total=options.iterations) as bar:
        best = BestState(validation, student, parameters)
        start = parameters.snapshot()
        image = training_images[:1].to(device)
        shard_size = max(
            1, SHARD_BYTES // bytes_saved_for_backward(lambda: run_to_outputs(student, image, with_stream=True), student)
        )

        def train(lr_factor: float) -> None:
            rng = torch.Generator().manual_seed(options.seed)
            groups = parameters.groups(lr_factor * options.lr, lr_factor * options.scale_lr)
            optimizer = AdamWarmupCosine(groups, options.iterations, betas=(0.9, 0.99))
            state = run.resume(STATE) if lr_factor == 1 else None  # an attempt at a smaller rate starts from the beginning
            if state is not None:
                rng.set_state(state["rng"])
                optimizer.restore(state)
                best.restore(state)
                bar.skip(optimizer.done)
            while optimizer.done < options.iterations:
                batch = torch.randperm(len(training_images), generator=rng)[: options.batch_size]
                views = augment(training_images[batch].to(device), rng)
                loss = loss_gradients(student, teacher, views, optimizer.parameters, dtype, shard_size, run)
                value = finite(loss, "distill: the loss", optimizer.done)
                optimizer.step()
                bar.advance(loss=value)
                if optimizer.done % max(1, options.iterations // NUM_CHECKS) == 0 or optimizer.done == options.iterations:
                    parameters.require_finite("distill")
                    best.update()
                    run.checkpoint(STATE, {"rng": rng.get_state()} | optimizer.state() | best.state())

        retry_with_smaller_lr(train, undo=lambda: parameters.restore(start))
        parameters.restore(best.values)
    unchanged = " (nothing kept)" if best.ratio == 1 else ""
    logger.info(f"distill: {best.ratio:.2f} of the error on held-out images is left{unchanged}")


def loss_gradients(
    student: nn.Module,
    teacher: nn.Module,
    views: Tensor,
    parameters: Sequence[Tensor],
    dtype: torch.dtype | None,
    shard_size: int,
    run: Run,
) -> Tensor:
    """Set the parameters' gradients of the loss on views (B, 3, H, W); return the loss, 0-d.

    A batch is always cut into at least two shards, so that one process and two processes sum the same numbers. With more
    processes there are more shards, and last digits differ. A shard has at most `shard_size` images, which bounds memory.
    """
    size = min(shard_size, -(-len(views) // max(MIN_SHARDS, run.count)))
    shards = run.share(views.split(size))
    with torch.autocast(views.device.type, dtype, enabled=dtype is not None):
        with torch.no_grad():
            targets = [run_to_outputs(teacher, shard, with_stream=True) for shard in shards]
        zeros = torch.zeros(
            len(units(teacher)) + 2, dtype=torch.float64, device=views.device
        )  # three, and all units but the last
        batch_sizes = run.total(sum((sizes(target) for target in targets), zeros))
        total = torch.zeros((), device=views.device)
        for shard, target in zip(shards, targets, strict=True):
            with torch.enable_grad():
                outputs = run_to_outputs(student, shard, with_stream=True)
                loss = output_distance(outputs, target, batch_sizes) + stream_distance(outputs, target, batch_sizes)
            loss.backward()
            total += loss.detach()
    sum_gradients(parameters, run)
    return run.total(total)


class BestState:
    """The parameters with the smallest error on held-out images so far, the initial ones included."""

    def __init__(self, validation: HeldOutValidation, student: nn.Module, parameters: TrainableParameters) -> None:
        self.validation, self.student, self.parameters = validation, student, parameters
        self.first_errors = validation.errors(student)
        self.ratio, self.values = 1.0, parameters.snapshot()

    def update(self) -> None:
        """Keep the student's current parameters if their error is smaller."""
        ratio = worst_ratio(self.validation.errors(self.student), self.first_errors)
        if ratio < self.ratio:
            self.ratio, self.values = ratio, self.parameters.snapshot()

    def state(self) -> Tensors:
        """The best and the current parameters, for `restore`."""
        numbers = {
            "ratio": torch.tensor(self.ratio, dtype=torch.float64),
            "first_errors": torch.tensor(self.first_errors, dtype=torch.float64),
        }
        best = {f"best_{index}": value for index, value in enumerate(self.values)}
        return numbers | best | {f"current_{index}": value for index, value in enumerate(self.parameters.snapshot())}

    def restore(self, state: Tensors) -> None:
        """Restore a result of `state`, in the student too."""
        self.ratio, self.first_errors = state["ratio"].item(), state["first_errors"].tolist()
        self.values = [state[f"best_{index}"] for index in range(len(self.values))]
        self.parameters.restore([state[f"current_{index}"] for index in range(len(self.values))])
