"""Checks of a checkpoint: its tensors against the structure before any is read, and the values that were read."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitdfq.common.errors import InputError, one_line
from vitdfq.common.safetensors_io import Header, dtype_name, not_finite
from vitdfq.models import build
from vitdfq.models.build import require_runs
from vitdfq.models.untrusted import fits_file, short
from vitdfq.preparation.prepare import prepared_copy
from vitdfq.quantization import quantize
from vitdfq.quantization.quantizers.base import Quantizer


def build_structure(spec: dict[str, Any], config: Path, file_bytes: int) -> tuple[nn.Module, nn.Module]:
    """Return (student, prepared float model) of a checked `spec`, both untrained; not larger than `file_bytes` can fill.

    Raises:
        InputError: this library or this timm cannot build it; it names `config`.
    """
    try:
        model = build(spec, most=fits_file(file_bytes))
        require_runs(model)
        prepared = prepared_copy(model, **spec["prepare"]) if "prepare" in spec else model
        student: Any = quantize(prepared, **spec["quantize"])
    except (ValueError, TypeError) as error:
        raise InputError(f"{config}: {one_line(error, most=None)}") from error
    student.vitdfq = spec
    return student, prepared


def check_layout(path: Path, header: Header, layout: Mapping[str, Tensor], may_lack: Collection[str]) -> None:
    """Compare names, types and shapes of a file with those that the structure needs.

    Raises:
        InputError: naming the first tensor that is too many, missing, or of another type or shape.
    """
    wrong = [f"{name} is missing" for name in layout if name not in header and name not in may_lack]
    wrong += [f"{short(name)} is not part of it" for name in header if name not in layout]
    for name, (dtype, shape) in header.items():
        needed = layout.get(name)
        if needed is not None and (dtype, shape) != (dtype_name(needed.dtype), tuple(needed.shape)):
            wrong.append(f"{name} is {dtype} {shape}, expected {dtype_name(needed.dtype)} {tuple(needed.shape)}")
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise InputError(f"{path}: tensors do not fit the structure in config.json ({wrong[0]}{more})")


def check_values(student: nn.Module) -> None:
    """Check the whole state of a filled student.

    Raises:
        ValueError: naming a value that is NaN or infinite, or settings that a quantizer cannot have.
    """
    if name := not_finite(student):
        raise ValueError(f"{name} is not finite")
    for name, part in student.named_modules():
        if isinstance(part, Quantizer):
            try:
                part.check()
            except ValueError as error:
                raise ValueError(f"{name}.{error}") from error
