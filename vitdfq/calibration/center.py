"""Centring: the part of an activation that every token shares need not be quantized."""

from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration.folding import float_function, float_inputs, plain_projections, require_unfitted
from vitdfq.models import attention_sites
from vitdfq.quantization.modules import QuantLinear


@torch.no_grad()
def center(student: nn.Module, teacher: nn.Module, images: Tensor, *, num_images: int = 64) -> None:
    """Move the mean over tokens and images of what is quantized into biases; the float function stays, whatever the images.

    Keys: softmax does not see a constant added to all keys of a head, so their mean leaves the bias of `qkv`. Values: rows of
    softmax sum to one, so their mean passes to the bias of `proj`. Queries: `QuantMatMul.left_shift`, whose scores are added
    back. Inputs of linear layers: `QuantLinear.input_shift`, met by the float weight. What remains has a smaller range, so finer
    steps; a mean that suits other images badly costs precision, never correctness.

    Args:
        student: changed in place; the quantizers must be fitted afterwards, by `observe`.
        teacher: not used; the student's own float function is measured.
        images: (N, 3, H, W).
        num_images: at most so many of the images are used; means need few.

    Raises:
        ValueError: quantizers fitted already.
    """
    require_unfitted(student, "center")
    images = images[:num_images]
    linears = {name: part for name, part in student.named_modules() if isinstance(part, QuantLinear)}
    _center_keys_and_values(student, images)
    _center_queries(student, images)
    means = float_inputs(student, {name: (name,) for name in linears}, images, _mean)
    for name, mean in means.items():
        shift = linears[name].input_shift
        linears[name].bias.add_(linears[name].weight @ (mean - shift))  # by the float weight: the mean pays no rounding
        shift.copy_(mean)


def _center_keys_and_values(student: nn.Module, images: Tensor) -> None:
    attentions = {f"{site.name}.qkv": student.get_submodule(site.name) for site in attention_sites(student)}
    inputs = float_inputs(student, {name: (name,) for name in attentions}, images, _mean)
    projections = plain_projections(student)
    for name, attention in attentions.items():
        qkv = attention.qkv
        mean = qkv.weight @ (inputs[name] - qkv.input_shift) + qkv.bias  # of what qkv writes: it is linear
        _, keys, values = mean.chunk(3)
        _, key_bias, value_bias = qkv.bias.chunk(3)  # views
        if isinstance(getattr(attention, "k_norm", nn.Identity()), nn.Identity):
            key_bias.sub_(keys)
        if f"{name.removesuffix('qkv')}proj" in projections:
            value_bias.sub_(values)
            attention.proj.bias.add_(attention.proj.weight @ values)


def _center_queries(student: nn.Module, images: Tensor) -> None:
    def collect(product: Any, operands: tuple[Tensor, Tensor]) -> None:
        product.left_shift.copy_(operands[0].mean((0, 2))[:, None, :])  # (B, heads, N, head_dim)

    hooks = [student.get_submodule(f"{site.name}.qk").register_forward_pre_hook(collect) for site in attention_sites(student)]
    try:
        with float_function(student):
            student(images)
    finally:
        for hook in hooks:
            hook.remove()


def _mean(name: str, inputs: Tensor) -> Tensor:
    return inputs.mean(0)
