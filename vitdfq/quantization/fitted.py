"""Whether the quantizers of a student are fitted."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from vitdfq.models.block_maps import in_one
from vitdfq.quantization.modules import QuantSite, named_sites


def require_fitted(student: nn.Module, step: str, remedy: str | None = None) -> None:
    """Raise ValueError, naming the first quantizer that is not fitted, before `step` computes with it."""
    for name, site, attribute in quantizers(student):
        if not site.quantizers[attribute].is_fitted:
            raise ValueError(f"{step}: {name}.{attribute} is not fitted; {remedy or f'put {step} after observe'}")


def quantizers(student: nn.Module) -> Iterator[tuple[str, QuantSite, str]]:
    """(name of the site, site, attribute) of every quantizer, in the order of registration."""
    for name, site in named_sites(student).items():
        yield from ((name, site, attribute) for attribute in site.quantizer_names)


def is_fitted(student: nn.Module) -> bool:
    """Return whether a student has quantizers that need a fit, and all are fitted. Where they are bypassed, it has none."""
    fits = [quantizer.is_fitted for _, site, name in quantizers(student) if (quantizer := site.quantizers[name]).needs_fit]
    return bool(fits) and all(fits)


def refuse_until_fitted(student: nn.Module) -> None:
    """Let every pass of `student` raise ValueError that gives NaN because a quantizer is not fitted yet.

    Passes that fit the quantizers on their way, or bypass them, are finite. The hook goes when the quantizers are fitted.
    """
    student.register_forward_hook(_refuse_unfitted)


def allow(student: nn.Module) -> None:
    """Remove what `refuse_until_fitted` added."""
    for key in [key for key, hook in student._forward_hooks.items() if hook is _refuse_unfitted]:
        del student._forward_hooks[key]


def _refuse_unfitted(student: nn.Module, args: Any, output: Tensor | tuple[Tensor, ...]) -> None:
    values = in_one(output)
    if values.is_meta:
        return
    if is_fitted(student):
        allow(student)
    elif not values.isfinite().all():
        require_fitted(student, "this student is not calibrated", "call calibrate(student, teacher, images) first")
