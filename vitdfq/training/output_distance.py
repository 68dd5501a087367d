"""The distance of a student to its teacher at the end of the network: minimized by distillation, measured on held-out images."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitdfq.models import family_of, units
from vitdfq.training.trainable import divergence


class ClassifierOutputs(NamedTuple):
    """The last three stages of a classifier."""

    tokens: Tensor  # (B, N, D) or (B, H, W, D), after the final norm, if there is one
    pooled: Tensor  # (B, D), what the head reads
    logits: Tensor  # (B, C)


def run_to_outputs(model: Any, images: Tensor) -> ClassifierOutputs:
    """Run the whole model on (B, 3, H, W)."""
    x = images
    for unit in units(model)[:-1]:
        x = unit.forward(x)
    return finish(model, x)


def finish(model: Any, x: Tensor) -> ClassifierOutputs:
    """Run the part of the model behind the last block on that block's output."""
    norm = family_of(model).final_norm
    tokens = x if norm is None else model.get_submodule(norm)(x)
    return ClassifierOutputs(tokens, model.forward_head(tokens, pre_logits=True), model.forward_head(tokens))


def sizes(teacher: ClassifierOutputs) -> Tensor:
    """The divisors of `output_distance`: squared sizes of tokens and pooled features, number of images; (3,) float64."""
    energies = [values.double().square().sum() for values in (teacher.tokens, teacher.pooled)]
    return torch.stack([*energies, energies[0].new_tensor(len(teacher.logits))])


def output_distance(student: ClassifierOutputs, teacher: ClassifierOutputs, whole: Tensor | None = None) -> Tensor:
    """Relative squared error of tokens and of pooled features, plus the divergence of the class probabilities; 0-d.

    Args:
        student, teacher: on the same images.
        whole: sum of the `sizes` of all parts of a batch; the distances of the parts then add up to the batch's.
    """
    tokens, pooled, count = sizes(teacher) if whole is None else whole
    return (
        relative_error(student.tokens, teacher.tokens, tokens)
        + relative_error(student.pooled, teacher.pooled, pooled)
        + divergence(student.logits, teacher.logits) * (len(teacher.logits) / count).float()
    )


def relative_error(x: Tensor, target: Tensor, size: Tensor | None = None) -> Tensor:
    """|x - target|^2 / |target|^2, 0-d, in float32 also under autocast; `size` in place of |target|^2."""
    x, target = x.float(), target.float()
    size = target.square().sum() if size is None else size.float()
    return (x - target).square().sum() / size.clamp(min=torch.finfo(torch.float32).tiny)
