"""End-to-end distillation: the quantized student learns to end where the float teacher ends, on synthetic images."""

import torch
from torch import Tensor, nn

from vitdfq.calibration.augment import augmented
from vitdfq.calibration.cached_activations import device_of
from vitdfq.calibration.held_out import HeldOutValidation, hold_out, worst_ratio
from vitdfq.common.lookup import lookup
from vitdfq.common.precision import PRECISIONS, fastest_precision
from vitdfq.quantization.fitted import require_fitted
from vitdfq.runtime import distributed, progress
from vitdfq.runtime.partial_results import PartialResults
from vitdfq.training.activation_memory import bytes_saved_for_backward
from vitdfq.training.optimizer import AdamWarmupCosine
from vitdfq.training.output_distance import output_distance, run_to_outputs, sizes
from vitdfq.training.trainable import TrainableParameters, finite, retry_with_smaller_lr, trainable

CHECKS = 4  # looks at the guard's images during the training
SHARDS, SHARD_BYTES = 2, 2**31  # of a batch, at least, and what one of them may keep for going back; see `_gradients`
STATE = "state"


def distill(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    *,
    iterations: int = 200,
    lr: float = 1e-3,
    scale_lr: float = 1e-4,
    batch_size: int = 32,
    precision: str | None = None,
    seed: int = 0,
    shelf: PartialResults | None = None,
) -> None:
    """Train weights, biases and activation scales of the whole student at once, through the rounding (straight-through).

    Steps block by block cannot make up for errors of later blocks; this one can. Every step sees new views of the images (see
    `augmented`). Of the states looked at, the one that is best on images not trained on is kept, the first included: on images
    that teach nothing, nothing changes (see `HeldOutValidation`). Losses and guard are this library's own.

    Args:
        student: changed in place; its quantizers must have been fitted, its weights are best rounded by `gptq` before.
        teacher: the float model the student was made from.
        images: (N, 3, H, W).
        iterations: Adam steps.
        lr: Adam's rate for weights, in quantization steps of each, with a short warm-up, falling to zero by a half cosine.
        scale_lr: the same for activation scales, relative to each; 0 leaves them.
        batch_size: images a step.
        precision: of the products; "bfloat16" or "float32", by default the faster of the two on this hardware. Weights, scales
            and rounding are float32 in both.
        seed: of batches and views, and of the guard's images.
        shelf: keeps the state at every look at the guard's images.

    Raises:
        ValueError: an unknown precision; quantizers that are not fitted; a loss that stopped being finite.
    """
    require_fitted(student, "distill")
    device = device_of(student)
    dtype = lookup(fastest_precision(device) if precision is None else precision, PRECISIONS, "precision")
    shown, held_out = hold_out(images)
    guard = HeldOutValidation(teacher, held_out, seed=seed)
    shelf = shelf or PartialResults()
    with trainable([student]) as trainables, progress.bar("distill", total=iterations) as bar:
        kept = Kept(guard, student, trainables)
        start = trainables.snapshot()
        at_once = max(1, SHARD_BYTES // bytes_saved_for_backward(lambda: run_to_outputs(student, shown[:1].to(device)), student))

        def train(pace: float) -> None:
            rng = torch.Generator().manual_seed(seed)
            descent = AdamWarmupCosine(trainables.groups(pace * lr, pace * scale_lr), iterations, betas=(0.9, 0.99))
            part = shelf.get(STATE) if pace == 1 else None  # a slower try begins at the start
            if part is not None:
                rng.set_state(part["rng"])
                descent.restore(part)
                kept.restore(part)
                bar.skip(descent.done)
            while descent.done < iterations:
                batch = torch.randperm(len(shown), generator=rng)[:batch_size]
                loss = _gradients(student, teacher, augmented(shown[batch].to(device), rng), descent.parameters, dtype, at_once)
                value = finite(loss, "distill: the loss", descent.done)
                descent.step()
                bar.advance(loss=value)
                if descent.done % max(1, iterations // CHECKS) == 0 or descent.done == iterations:
                    trainables.require_finite("distill")
                    kept.look()
                    shelf.put(STATE, {"rng": rng.get_state()} | descent.state() | kept.state())

        retry_with_smaller_lr(train, undo=lambda: trainables.restore(start))
        trainables.restore(kept.values)
    best = kept.ratio
    progress.say(f"distill: {best:.2f} of the error on images not trained on is left" + (" (nothing kept)" if best == 1 else ""))


def _gradients(
    student: nn.Module, teacher: nn.Module, views: Tensor, parameters: list[Tensor], dtype: torch.dtype | None, at_once: int
) -> Tensor:
    """Give the parameters the gradients of the distance on views (B, 3, H, W); return it, 0-d.

    The batch is cut into two shards whether or not there are two processes to share them out to, so that one and two processes
    add up the same numbers; with more there are more shards, and last digits differ. A large model gets more of them too: no
    shard has more than `at_once` images, so that memory is bounded whatever the batch.
    """
    shards = distributed.share(views.split(min(at_once, -(-len(views) // max(SHARDS, distributed.count())))))
    with torch.autocast(views.device.type, dtype, enabled=dtype is not None):
        with torch.no_grad():
            targets = [run_to_outputs(teacher, shard) for shard in shards]
        whole = distributed.summed(
            sum((sizes(target) for target in targets), torch.zeros(3, dtype=torch.float64, device=views.device))
        )
        total = torch.zeros((), device=views.device)
        for shard, target in zip(shards, targets, strict=True):
            with torch.enable_grad():
                loss = output_distance(run_to_outputs(student, shard), target, whole)
            loss.backward()
            total += loss.detach()
    distributed.sum_gradients(parameters)
    return distributed.summed(total)


class Kept:
    """The best state so far on images not trained on, the first one included."""

    def __init__(self, guard: HeldOutValidation, student: nn.Module, trainables: TrainableParameters) -> None:
        self.guard, self.student, self.trainables = guard, student, trainables
        self.before = guard.errors(student)
        self.ratio, self.values = 1.0, trainables.snapshot()

    def look(self) -> None:
        """Keep the student as it is now, if it is better."""
        left = worst_ratio(self.guard.errors(self.student), self.before)
        if left < self.ratio:
            self.ratio, self.values = left, self.trainables.snapshot()

    def state(self) -> dict[str, Tensor]:
        """What is kept, and the student as it is now."""
        numbers = {
            "ratio": torch.tensor(self.ratio, dtype=torch.float64),
            "before": torch.tensor(self.before, dtype=torch.float64),
        }
        named = {f"kept_{number}": value for number, value in enumerate(self.values)}
        return numbers | named | {f"now_{number}": value for number, value in enumerate(self.trainables.snapshot())}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.ratio, self.before = state["ratio"].item(), state["before"].tolist()
        self.values = [state[f"kept_{number}"] for number in range(len(self.values))]
        self.trainables.restore([state[f"now_{number}"] for number in range(len(self.values))])
