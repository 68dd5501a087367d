"""Block-by-block reconstruction: move each block's weights until its quantized output matches the float block's."""

import math
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq import progress
from vitdfq.models import Unit, units
from vitdfq.quantization.modules import weighted_modules


def reconstruct(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    *,
    iterations: int = 200,
    lr: float = 2e-4,
    batch_size: int = 32,
    keep: float = 0.5,
    seed: int = 0,
) -> None:
    """Train weights and biases of each unit through the rounding (straight-through), in order, against the float unit.

    Inputs are mixed element by element from the quantized and the float stream (QDrop, arXiv 2203.05740), which keeps few or
    odd images from being overfitted; the quantized stream is refreshed after each unit. LayerNorm and scales stay.

    Args:
        student: changed in place; its quantizers must have been fitted.
        teacher: the float model the student was made from.
        images: (N, 3, H, W).
        iterations: Adam steps a unit.
        lr: Adam's rate, falling to zero by a half cosine.
        batch_size: images a step.
        keep: share of input elements taken from the quantized stream.
        seed: of the batches and the mixing.
    """
    rng = torch.Generator(device=images.device).manual_seed(seed)
    quantized, real = images, images
    pairs = list(zip(units(student), units(teacher), strict=True))
    with progress.bar("reconstruct", total=len(pairs) * iterations) as bar:
        for position, (unit, float_unit) in enumerate(pairs):
            with torch.no_grad():
                target = float_unit.forward(real)
            distance = distillation_loss if position == len(pairs) - 1 else F.mse_loss
            with _trainable(unit) as parameters:
                optimizer = torch.optim.Adam(parameters, lr=lr)
                schedule = torch.optim.lr_scheduler.LambdaLR(
                    optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / iterations))
                )
                for _ in range(iterations):
                    batch = torch.randperm(len(images), generator=rng, device=images.device)[:batch_size]
                    drawn = torch.rand(quantized[batch].shape, generator=rng, device=images.device)
                    mixed = torch.where(drawn < keep, quantized[batch], real[batch])
                    loss = distance(unit.forward(mixed), target[batch])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                    bar.advance(loss=loss.item())
            with torch.no_grad():
                quantized, real = unit.forward(quantized), target


def distillation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """KL divergence from the teacher's to the student's class probabilities; logits (B, C), mean over the batch."""
    return F.kl_div(logits.log_softmax(-1), target.log_softmax(-1), log_target=True, reduction="batchmean")


@contextmanager
def _trainable(unit: Unit):
    """Let weights and biases of the unit's quantized modules take gradients inside the block; frozen again after it."""
    parameters = [
        parameter
        for owner in unit.modules
        for module in weighted_modules(owner)
        for parameter in (module.weight, module.bias)
        if parameter is not None
    ]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield parameters
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
