"""Fake-quantized students for losses that compare them with the teacher; ranges come from one look at the images."""

import torch
from torch import Tensor, nn

from vitdfq.models.record import hooked
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import activation_quantizers, put_weight_on_grid, weighted_modules


def make_student(teacher: nn.Module, bits: str) -> nn.Module:
    """Return a rotated copy of the teacher with its weights on their grids; `refresh` fits the ranges of activations."""
    student = make_learner(teacher, bits)
    for module in weighted_modules(student):
        put_weight_on_grid(module)
    return student


def make_learner(teacher: nn.Module, bits: str) -> nn.Module:
    """The same student with weights that may still move: they are rounded at every pass, by quantizers that are fitted."""
    student = quantize(prepare(teacher), bits=bits, activation={"observer": "min_max"})
    for module in weighted_modules(student):
        module.weight_quantizer.fit(module.weight.flatten(1))
    for module in student.modules():  # a copy of a teacher that is listened to would write into the teacher's record
        module._forward_hooks.clear()
    return student.eval().requires_grad_(False)


@torch.no_grad()
def refresh(student: nn.Module, images: Tensor) -> None:
    """Fit every activation quantizer to what it sees of images (B, 3, H, W), in one pass."""

    def fit(quantizer: nn.Module, args: tuple[Tensor]) -> None:
        quantizer.fit(args[0])

    with hooked(quantizer.register_forward_pre_hook(fit) for quantizer in activation_quantizers(student)):
        student(images)
