"""The distance between student and teacher: at the end of the network and, in distillation, behind each of its units.

At the end it is the error on held-out images; both together are the loss of distillation.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitdfq.models import gives, head_outputs, units
from vitdfq.training.trainable import divergence


class ModelOutputs(NamedTuple):
    """The outputs of a model's last stages: tokens, what is pooled of them, and what a head makes of that, if there is one.

    `stream` holds what the earlier units wrote, where it was asked for: (B, ...) each.
    """

    tokens: Tensor  # (B, N, D) or (B, H, W, D), after the final norm, if there is one
    pooled: Tensor  # (B, D), the input of the head; the tokens again where a model does not pool
    logits: Tensor | None = None  # (B, C) of classes; None where the model gives features
    embedding: Tensor | None = None  # (B, E), of a head that projects (CLIP); None for classes, and without a head
    stream: tuple[Tensor, ...] = ()


def run_to_outputs(model: Any, images: Tensor, *, with_stream: bool = False) -> ModelOutputs:
    """Run the whole model on images (B, 3, H, W); `with_stream` keeps what each unit but the last wrote."""
    x, stream = images, []
    for unit in units(model)[:-1]:
        x = unit.forward(x)
        stream.append(x)
    outputs = outputs_of_last_block(model, x)
    return outputs._replace(stream=tuple(stream)) if with_stream else outputs


def outputs_of_last_block(model: Any, x: Tensor) -> ModelOutputs:
    """Run the final norm, the pooling and the head on the output `x` of the last block."""
    tokens, pooled, output = head_outputs(model, x)
    if gives(model) == "classes":
        return ModelOutputs(tokens, pooled, logits=output)
    return ModelOutputs(tokens, pooled, embedding=output if model.num_classes else None)


def sizes(teacher: ModelOutputs) -> Tensor:
    """The divisors of the distances, (3 + units of the stream,) float64: of tokens, pooled features, head, and the stream.

    All are energies, except the head's for classes: there it is the number of images, as the divergence is a mean. Without a head
    it is 0 and not used.
    """
    tokens, pooled, *stream = (energy(values) for values in (teacher.tokens, teacher.pooled, *teacher.stream))
    if teacher.logits is not None:
        head = tokens.new_tensor(len(teacher.logits))
    else:
        head = tokens.new_zeros(()) if teacher.embedding is None else energy(teacher.embedding)
    return torch.stack([tokens, pooled, head, *stream])


def energy(x: Tensor) -> Tensor:
    """The sum of squares, 0-d float64."""
    return x.double().square().sum()


def output_distance(student: ModelOutputs, teacher: ModelOutputs, batch_sizes: Tensor | None = None) -> Tensor:
    """Relative squared error of tokens and of pooled features, plus the distance of what the head makes of them; 0-d.

    That is the divergence of the class probabilities, or the relative squared error of an embedding; a model without a head has
    no third summand.

    Args:
        student, teacher: outputs on the same images.
        batch_sizes: sum of the `sizes` of all shards of a batch; the distances of the shards then add up to the batch's. None:
            these images are the whole batch.
    """
    tokens, pooled, head = (sizes(teacher) if batch_sizes is None else batch_sizes)[:3]
    distance = relative_error(student.tokens, teacher.tokens, tokens) + relative_error(student.pooled, teacher.pooled, pooled)
    if student.logits is not None and teacher.logits is not None:
        return distance + divergence(student.logits, teacher.logits) * (len(teacher.logits) / head).float()
    if student.embedding is not None and teacher.embedding is not None:
        return distance + relative_error(student.embedding, teacher.embedding, head)
    return distance


def stream_distance(student: ModelOutputs, teacher: ModelOutputs, batch_sizes: Tensor | None = None) -> Tensor:
    """Relative squared error of what the units wrote, the mean over all units but the last; 0-d. Arguments as above.

    The end alone says little about early units: behind a dozen quantized blocks their gradients are mostly rounding noise.
    """
    energies = (sizes(teacher) if batch_sizes is None else batch_sizes)[3:]
    pairs = zip(student.stream, teacher.stream, energies, strict=True)
    return torch.stack([relative_error(x, target, size) for x, target, size in pairs]).mean()


def relative_error(x: Tensor, target: Tensor, size: Tensor | None = None) -> Tensor:
    """|x - target|^2 / |target|^2, 0-d, in float32 also under autocast; `size` replaces |target|^2."""
    x, target = x.float(), target.float()
    size = target.square().sum() if size is None else size.float()
    return (x - target).square().sum() / size.clamp(min=torch.finfo(torch.float32).tiny)


def decibels(signal: float, noise: float) -> float | None:
    """Return 10 log10(signal / noise) of two energies; None where there is no noise, or no signal."""
    return 10 * math.log10(signal / noise) if signal and noise else None
