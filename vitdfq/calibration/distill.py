"""End-to-end distillation: the quantized student learns to end where the float teacher ends, on synthetic images."""

import torch
from torch import Tensor, nn

from vitdfq import progress
from vitdfq.calibration.augment import augmented
from vitdfq.calibration.distance import distance, ending_of
from vitdfq.calibration.folding import require_fitted
from vitdfq.calibration.guard import Guard, hold_out, worst_ratio
from vitdfq.pick import pick
from vitdfq.quantization.learning import finite, half_cosine, learning
from vitdfq.synthesis.networks import PRECISIONS

CHECKS = 4  # looks at the guard's images during the training


def distill(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    *,
    iterations: int = 200,
    lr: float = 1e-3,
    scale_lr: float = 1e-4,
    batch_size: int = 32,
    precision: str = "bfloat16",
    seed: int = 0,
) -> None:
    """Train weights, biases and activation scales of the whole student at once, through the rounding (straight-through).

    Steps block by block cannot make up for errors of later blocks; this one can. Every step sees new views of the images (see
    `augmented`). Of the states looked at, the one that is best on images not trained on is kept, the first included: on images
    that teach nothing, nothing changes (see `Guard`). Losses and guard are this library's own.

    Args:
        student: changed in place; its quantizers must have been fitted, its weights are best rounded by `gptq` before.
        teacher: the float model the student was made from.
        images: (N, 3, H, W).
        iterations: Adam steps.
        lr: Adam's rate for weights, in quantization steps of each, with a short warm-up, falling to zero by a half cosine.
        scale_lr: the same for activation scales, relative to each; 0 leaves them.
        batch_size: images a step.
        precision: of the products; "bfloat16" or "float32". Weights, scales and rounding are float32 in both.
        seed: of batches and views, and of the guard's images.

    Raises:
        ValueError: an unknown precision; quantizers that are not fitted; a loss that stopped being finite.
    """
    require_fitted(student, "distill")
    dtype = pick(precision, PRECISIONS, "precision")
    train, held_out = hold_out(images)
    guard = Guard(teacher, held_out, seed)
    rng = torch.Generator().manual_seed(seed)
    with learning([student]) as learners, progress.bar("distill", total=iterations) as bar:
        optimizer = torch.optim.Adam(learners.groups(lr, scale_lr), betas=(0.9, 0.99))
        schedule = half_cosine(optimizer, iterations)
        before = guard.errors(student)
        best, kept = 1.0, learners.snapshot()
        for step in range(1, iterations + 1):
            views = augmented(train[torch.randperm(len(train), generator=rng)[:batch_size].to(train.device)], rng)
            with torch.autocast(views.device.type, dtype, enabled=dtype is not None):
                with torch.no_grad():
                    target = ending_of(teacher, views)
                with torch.enable_grad():
                    loss = distance(ending_of(student, views), target)
            value = finite(loss, "distill: the loss", step - 1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.advance(loss=value)
            if step % max(1, iterations // CHECKS) == 0 or step == iterations:
                left = worst_ratio(guard.errors(student), before)
                if left < best:
                    best, kept = left, learners.snapshot()
        learners.restore(kept)
    progress.say(f"distill: {best:.2f} of the error on images not trained on is left" + (" (nothing kept)" if best == 1 else ""))
