"""The distance between student and teacher at the end of the network.

It is the loss of distillation, and the error on held-out images.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitdfq.models import head_outputs, units
from vitdfq.training.trainable import divergence


class ClassifierOutputs(NamedTuple):
    """The outputs of a classifier's last three stages."""

    tokens: Tensor  # (B, N, D) or (B, H, W, D), after the final norm, if there is one
    pooled: Tensor  # (B, D), the input of the head
    logits: Tensor  # (B, C)


def run_to_outputs(model: Any, images: Tensor) -> ClassifierOutputs:
    """Run the whole model on images (B, 3, H, W)."""
    x = images
    for unit in units(model)[:-1]:
        x = unit.forward(x)
    return outputs_of_last_block(model, x)


def outputs_of_last_block(model: Any, x: Tensor) -> ClassifierOutputs:
    """Run the final norm, the pooling and the head on the output `x` of the last block."""
    return ClassifierOutputs(*head_outputs(model, x))


def sizes(teacher: ClassifierOutputs) -> Tensor:
    """The divisors of `output_distance`: energies of tokens and of pooled features, and the number of images; (3,) float64."""
    energies = [values.double().square().sum() for values in (teacher.tokens, teacher.pooled)]
    return torch.stack([*energies, energies[0].new_tensor(len(teacher.logits))])


def output_distance(student: ClassifierOutputs, teacher: ClassifierOutputs, batch_sizes: Tensor | None = None) -> Tensor:
    """Relative squared error of tokens and of pooled features, plus the divergence of the class probabilities; 0-d.

    Args:
        student, teacher: outputs on the same images.
        batch_sizes: sum of the `sizes` of all shards of a batch; the distances of the shards then add up to the batch's. None:
            these images are the whole batch.
    """
    tokens, pooled, count = sizes(teacher) if batch_sizes is None else batch_sizes
    return (
        relative_error(student.tokens, teacher.tokens, tokens)
        + relative_error(student.pooled, teacher.pooled, pooled)
        + divergence(student.logits, teacher.logits) * (len(teacher.logits) / count).float()
    )


def relative_error(x: Tensor, target: Tensor, size: Tensor | None = None) -> Tensor:
    """|x - target|^2 / |target|^2, 0-d, in float32 also under autocast; `size` replaces |target|^2."""
    x, target = x.float(), target.float()
    size = target.square().sum() if size is None else size.float()
    return (x - target).square().sum() / size.clamp(min=torch.finfo(torch.float32).tiny)
