"""How far a student is from its teacher at the end of the network: what distillation minimises and the guard measures."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitdfq.models import family_of, units
from vitdfq.quantization.learning import divergence


class Ending(NamedTuple):
    """The last three stations of a classifier."""

    tokens: Tensor  # (B, N, D) or (B, H, W, D), after the final norm, if there is one
    pooled: Tensor  # (B, D), what the head reads
    logits: Tensor  # (B, C)


def ending_of(model: Any, images: Tensor) -> Ending:
    """Run the whole model on (B, 3, H, W)."""
    x = images
    for unit in units(model)[:-1]:
        x = unit.forward(x)
    return finish(model, x)


def finish(model: Any, x: Tensor) -> Ending:
    """Run what follows the last block on its output."""
    norm = family_of(model).final_norm
    tokens = x if norm is None else model.get_submodule(norm)(x)
    return Ending(tokens, model.forward_head(tokens, pre_logits=True), model.forward_head(tokens))


def distance(student: Ending, teacher: Ending) -> Tensor:
    """Relative squared error of tokens and of pooled features, plus the divergence of the class probabilities; 0-d."""
    return (
        relative_error(student.tokens, teacher.tokens)
        + relative_error(student.pooled, teacher.pooled)
        + divergence(student.logits, teacher.logits)
    )


def relative_error(x: Tensor, target: Tensor) -> Tensor:
    """|x - target|^2 / |target|^2, 0-d, in float32 also under autocast."""
    x, target = x.float(), target.float()
    return (x - target).square().sum() / target.square().sum().clamp(min=torch.finfo(torch.float32).tiny)
