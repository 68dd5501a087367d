"""Bias correction: the mean of the quantization error over tokens is subtracted through the biases."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of
from vitdfq.common.options import check_counts
from vitdfq.models import projections
from vitdfq.models.record import hooked
from vitdfq.quantization.modules import QuantConv2d, named_weighted_modules
from vitdfq.runtime.run import Run

Hook = Callable[[nn.Module, Any, Tensor], Tensor | None]


@dataclass(frozen=True)
class CorrectBiasOptions:
    """Options of `correct_bias`.

    Attributes:
        num_images: the number of images used, from the first. They pass at once, so that this bounds memory.
    """

    num_images: int = 64

    def __post_init__(self) -> None:
        check_counts(self, "num_images")


@torch.no_grad()
def correct_bias(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    options: CorrectBiasOptions | None = None,
    *,
    run: Run | None = None,
) -> None:
    """Add to the bias of each Linear and Conv2d the mean of (float output - quantized output), per output feature.

    This is the bias correction of DFQ (arXiv 1906.04721), measured instead of derived. Layers are corrected in order of
    execution: the inputs of a layer contain the corrections of the layers before it. The float output is that of the teacher's
    module of the same name; the mean is over images and tokens.

    Keys and values are not corrected: `center` and `equalize` may have changed them, so that the teacher's are no reference. A
    constant error in keys has no effect. One in values passes attention as a constant, which the correction of `proj` includes.

    Args:
        student: biases are changed in place; its quantizers must have been fitted.
        teacher: the float model that the student was made from.
        images: (N, 3, H, W).
        options: see `CorrectBiasOptions`.
        run: not used.

    Raises:
        ValueError: the student's outputs are not finite, since `observe` has not run.
    """
    options = options or CorrectBiasOptions()
    images = images[: options.num_images].to(device_of(student))
    names = [name for name, _ in named_weighted_modules(student)]
    excluded: dict[str, list[int]] = {}  # linear -> its rows that write keys and values
    for projection in projections(student):
        for written in (projection.keys, projection.values):
            excluded.setdefault(written.linear, []).extend(written.rows)
    targets: dict[str, Tensor] = {}
    for model, hook_of in ((teacher, partial(_record, targets)), (student, partial(_correct, targets, excluded))):
        with hooked(model.get_submodule(name).register_forward_hook(hook_of(name)) for name in names):
            model(images)


def _record(targets: dict[str, Tensor], name: str) -> Hook:
    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        targets[name] = _feature_mean(module, output)

    return hook


def _correct(targets: dict[str, Tensor], excluded: dict[str, list[int]], name: str) -> Hook:
    """A hook that corrects the module's bias and its output, except for the `excluded` rows."""

    def hook(module: Any, args: Any, output: Tensor) -> Tensor:
        error = targets[name] - _feature_mean(module, output)
        if not error.isfinite().all():
            raise ValueError(f"correct_bias: the output of {name} is not finite; put correct_bias after observe")
        error[excluded.get(name, [])] = 0.0
        error = error.to(output.dtype)
        module.bias.add_(error)
        return output + (error[:, None, None] if isinstance(module, QuantConv2d) else error)

    return hook


def _feature_mean(module: nn.Module, output: Tensor) -> Tensor:
    """(B, ..., F) of a Linear or (B, F, H, W) of a Conv2d -> (F,), float64."""
    features = 1 if isinstance(module, QuantConv2d | nn.Conv2d) else output.ndim - 1
    return output.mean([dim for dim in range(output.ndim) if dim != features], dtype=torch.float64)
