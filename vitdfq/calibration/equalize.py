"""Equalization: balance the range of each channel between an activation and the weights that read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration.folding import float_inputs, foldable_norms, require_uncentered, require_unfitted
from vitdfq.common.options import check_counts
from vitdfq.models import projections
from vitdfq.runtime.run import Run

MIN_PEAK = 1e-5  # bounds the scale of a channel that is zero on these images, or whose weights are zero


@dataclass(frozen=True)
class EqualizeOptions:
    """Options of `equalize`.

    Attributes:
        alpha: 0 to 1, the share of an activation's outliers that moves into the weights; 1 gives all channels of X one range.
        num_images: the number of images used, from the first; ranges need few.

    Raises:
        ValueError: alpha outside 0..1.
    """

    alpha: float = 0.5
    num_images: int = 64

    def __post_init__(self) -> None:
        check_counts(self, "num_images")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}; choices: 0 to 1")


@torch.no_grad()
def equalize(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    options: EqualizeOptions | None = None,
    *,
    run: Run | None = None,
) -> None:
    """Divide input channel j of a linear layer by s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), and multiply its weights by s_j.

    SmoothQuant (arXiv 2211.10438). The division is folded into the affine of the norm before the layer. For attention's `proj`
    it is folded into the rows that write the values, since softmax mixes tokens and not channels. The float function does not
    change; the quantizers must be fitted afterwards, by `observe`.

    Args:
        student: changed in place: weights, biases and the affine of norms.
        teacher: not used; the student itself is measured without quantizers, so that several such steps can follow each other.
        images: (N, 3, H, W).
        options: see `EqualizeOptions`.
        run: not used.

    Raises:
        ValueError: a norm without affine, as in rotated models; the quantizers are fitted already.
    """
    options = options or EqualizeOptions()
    readers = {site.norm: site.readers for site in foldable_norms(student, "equalize")}
    _equalize(student, readers, images, options)


@torch.no_grad()
def equalize_values(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    options: EqualizeOptions | None = None,
    *,
    run: Run | None = None,
) -> None:
    """`equalize` (SmoothQuant, arXiv 2211.10438) of attention's `proj` alone, which rotated models can take too.

    No norm is between the values and `proj`. A rotation makes channels of a head alike, and leaves heads of unlike sizes.
    The input of `proj` has one scale for all of them.

    Args:
        student: changed in place: rows that write the values, their biases, and columns of `proj`.
        teacher: not used, as by `equalize`.
        images: (N, 3, H, W).
        options: see `EqualizeOptions`.
        run: not used.

    Raises:
        ValueError: the quantizers are fitted already, or inputs are centered.
    """
    require_unfitted(student, "equalize_values")
    require_uncentered(student, "equalize_values")
    _equalize(student, {}, images, options or EqualizeOptions())


def _equalize(student: nn.Module, readers: Mapping[str, Sequence[str]], images: Tensor, options: EqualizeOptions) -> None:
    """Equalize the inputs of these readers of norms, by norm, and of every `proj` that reads its values unchanged."""
    values = {projection.reader: projection.values for projection in projections(student) if projection.reader}
    groups = {**readers, **{proj: (proj,) for proj in values}}
    peaks = float_inputs(student, groups, images[: options.num_images], lambda name, inputs: inputs.abs().amax(0).double())
    scales = {}
    for name, peak in peaks.items():
        linears: list[Any] = [student.get_submodule(reader) for reader in groups[name]]
        columns = torch.cat([linear.weight for linear in linears]).abs().amax(0).double()
        scales[name] = peak.clamp(min=MIN_PEAK) ** options.alpha / columns.clamp(min=MIN_PEAK) ** (1 - options.alpha)  # (C,)
        for linear in linears:
            linear.weight.mul_(scales[name])
    for name, scale in scales.items():
        if name in readers:
            _divide(student.get_submodule(name), scale)
        else:
            writer: Any = student.get_submodule(values[name].linear)
            rows = torch.ones_like(writer.bias, dtype=scale.dtype)
            rows[list(values[name].rows)] = scale
            _divide(writer, rows)
            if beside := values[name].bias:
                student.get_parameter(beside).div_(scale)


def _divide(module: Any, scale: Tensor) -> None:
    """Divide the output of a norm or a linear layer by scale (C,)."""
    weight, bias = module.weight, getattr(module, "bias", None)
    weight.div_(scale.view(-1, *[1] * (weight.ndim - 1)))
    if bias is not None:
        bias.div_(scale)
