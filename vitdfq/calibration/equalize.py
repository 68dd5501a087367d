"""Equalisation: share the range of each channel between the activation and the weight that reads it."""

import torch
from torch import Tensor, nn

from vitdfq.calibration.folding import float_inputs, foldable_norms
from vitdfq.models import projections

SMALLEST = 1e-5  # a channel that is silent in these images, or that nothing reads, must not be scaled without bound


@torch.no_grad()
def equalize(student: nn.Module, teacher: nn.Module, images: Tensor, *, alpha: float = 0.5, num_images: int = 64) -> None:
    """Divide channel j of what a linear layer reads by s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), and multiply W_j by it.

    SmoothQuant (arXiv 2211.10438). The division is folded where it costs nothing: into the affine of the norm before, and for
    attention's `proj` into the rows that write the values (softmax mixes tokens, not channels). The float function
    stays; the quantizers must be fitted afterwards, by `observe`.

    Args:
        student: changed in place: weights, biases and the affine of norms.
        teacher: not used; the student's own float function is measured, so that rewrites can follow each other.
        images: (N, 3, H, W).
        alpha: 0 to 1, how much of an activation's outliers goes into the weights; 1 makes all channels of X alike.
        num_images: at most so many of the images are used; ranges need few.

    Raises:
        ValueError: alpha outside 0..1; a norm without affine, as in rotated models; quantizers fitted already.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"equalize: alpha is {alpha}; choices: 0 to 1")
    readers = {site.norm: site.readers for site in foldable_norms(student, "equalize")}
    values = {projection.reader: projection.values for projection in projections(student) if projection.reader}
    groups = readers | {proj: (proj,) for proj in values}
    peaks = float_inputs(student, groups, images[:num_images], lambda name, inputs: inputs.abs().amax(0).double())
    scales = {}
    for name, peak in peaks.items():
        linears = [student.get_submodule(reader) for reader in groups[name]]
        columns = torch.cat([linear.weight for linear in linears]).abs().amax(0).double()
        scales[name] = peak.clamp(min=SMALLEST) ** alpha / columns.clamp(min=SMALLEST) ** (1 - alpha)  # (C,)
        for linear in linears:
            linear.weight.mul_(scales[name])
    for name, scale in scales.items():
        if name in readers:
            _divide(student.get_submodule(name), scale)
        else:
            writer = student.get_submodule(values[name].linear)
            rows = torch.ones_like(writer.bias, dtype=scale.dtype)
            rows[list(values[name].rows)] = scale
            _divide(writer, rows)


def _divide(module: nn.Module, scale: Tensor) -> None:
    """Make a norm or a linear layer write output / scale; scale (C,)."""
    weight, bias = module.weight, getattr(module, "bias", None)
    weight.div_(scale.view(-1, *[1] * (weight.ndim - 1)))
    if bias is not None:
        bias.div_(scale)
