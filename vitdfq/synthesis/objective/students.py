"""Fake-quantized students for the losses that compare them with the teacher."""

from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.models.record import hooked
from vitdfq.preparation.prepare import prepared_copy
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import activation_quantizers, put_weight_on_grid, weighted_modules


def make_student(teacher: nn.Module, bits: str) -> nn.Module:
    """Return a rotated copy of the teacher, weights rounded to their grids; `refresh` fits the ranges of its activations."""
    student = make_learner(teacher, bits)
    for module in weighted_modules(student):
        put_weight_on_grid(module)
    return student


def make_learner(teacher: nn.Module, bits: str) -> nn.Module:
    """Return the student of `make_student` with unrounded weights: fitted quantizers round them at every pass."""
    student = quantize(prepared_copy(teacher), bits=bits, activation={"observer": "min_max"})
    for module in weighted_modules(student):
        quantizer: Any = module.weight_quantizer
        quantizer.fit(module.weight.flatten(1))
    for module in student.modules():  # hooks copied with a recorded teacher would write into the teacher's record
        module._forward_hooks.clear()
    return student.eval().requires_grad_(False)


@torch.no_grad()
def refresh(student: nn.Module, images: Tensor) -> None:
    """Fit every activation quantizer to its input on images (B, 3, H, W), in one pass."""

    def fit(quantizer: Any, args: tuple[Tensor]) -> None:
        quantizer.fit(args[0])

    with hooked(quantizer.register_forward_pre_hook(fit) for quantizer in activation_quantizers(student)):
        student(images)
