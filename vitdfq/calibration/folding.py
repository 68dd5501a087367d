"""Shared by the steps that change a student's weights but not its float function.

They fold scales into norms, and measure the student's activations without quantizers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of
from vitdfq.models import NormReaders, norm_readers
from vitdfq.models.record import hooked
from vitdfq.quantization.fitted import quantizers
from vitdfq.quantization.modules import QuantLinear
from vitdfq.quantization.quantizers.base import Unquantized

T = TypeVar("T")
Listener = Callable[[nn.Module, Any], None]


def foldable_norms(student: nn.Module, step: str) -> list[NormReaders]:
    """Return the norms whose affine `step` may change, with the linear layers that can compensate for it.

    Raises:
        ValueError: a norm has no affine; `step` changes ranges that quantizers are fitted to, or inputs that are centered.
    """
    require_unfitted(student, step)
    require_uncentered(student, step)
    sites = norm_readers(student)
    for site in sites:
        if getattr(student.get_submodule(site.norm), "weight", None) is None:
            raise ValueError(
                f"{step}: {site.norm} has no affine to fold into (rotated models need no {step.removesuffix('e')}ing); "
                "drop the step, or prepare without rotation: `prepare.steps: [fold_layer_scale]`"
            )
    return sites


def require_uncentered(student: nn.Module, step: str) -> None:
    """Raise ValueError when inputs are centered already, by shifts that `step` is about to change."""
    if any(isinstance(part, QuantLinear) and bool(part.input_shift.any()) for part in student.modules()):
        raise ValueError(f"{step}: the inputs are centered already, by shifts that {step} changes; put it before center")


def require_unfitted(student: nn.Module, step: str) -> None:
    """Raise ValueError when quantizers are fitted already, on ranges that `step` is about to change."""
    all_quantizers = (site.quantizers[attribute] for _, site, attribute in quantizers(student))
    if any(quantizer.needs_fit and quantizer.is_fitted for quantizer in all_quantizers):
        raise ValueError(f"{step}: the quantizers are fitted already, on ranges that {step} changes; put it before observe")


@contextmanager
def float_function(student: nn.Module) -> Iterator[None]:
    """Remove the student's quantizers inside the block, and restore them after it, also after an error."""
    taken = [(part, child, part.get_submodule(child)) for _, part, child in quantizers(student)]
    try:
        for part, name, _ in taken:
            setattr(part, name, Unquantized())
        yield
    finally:
        for part, name, quantizer in taken:
            setattr(part, name, quantizer)


@torch.no_grad()
def float_inputs(
    student: nn.Module, groups: Mapping[str, Sequence[str]], images: Tensor, statistic: Callable[[str, Tensor], T]
) -> dict[str, T]:
    """Return `statistic(group, inputs)` for each group of modules, from one forward pass without quantizers.

    Activations of a group are released once its statistic is computed.

    Args:
        student: its quantizers are bypassed, so that they need not be fitted.
        groups: name -> modules that read one norm; their inputs (..., C) are concatenated to (tokens, C).
        images: (N, 3, H, W).
        statistic: called once for each group.
    """
    statistics: dict[str, T] = {}
    collected: dict[str, dict[str, Tensor]] = {group: {} for group in groups}

    def collect(group: str, reader: str) -> Listener:
        def hook(module: nn.Module, args: Any) -> None:
            inputs = collected[group]
            inputs[reader] = args[0]
            if len(inputs) == len(groups[group]):
                distinct = {id(x): x for x in inputs.values()}  # q, k, v and a gate read one tensor, two heads two tokens
                statistics[group] = statistic(group, torch.cat([x.flatten(0, -2) for x in distinct.values()]))
                inputs.clear()

        return hook

    float_pass(student, images, [(reader, collect(group, reader)) for group, readers in groups.items() for reader in readers])
    return statistics


@torch.no_grad()
def float_pass(student: nn.Module, images: Tensor, listeners: Sequence[tuple[str, Listener]]) -> None:
    """Run the student without quantizers.

    Args:
        student: its quantizers are bypassed.
        images: (N, 3, H, W); all pass at once, so that the caller has to limit their number.
        listeners: (name of a module, forward pre-hook): called with the module and its positional inputs.
    """
    hooks = (student.get_submodule(name).register_forward_pre_hook(listener) for name, listener in listeners)
    with hooked(hooks), float_function(student):
        student(images.to(device_of(student)))
