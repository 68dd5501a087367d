"""The model that a checkpoint's config.json describes, before anything fills it."""

from pathlib import Path
from typing import Any

from torch import nn

from vitdfq.errors import InputError, one_line
from vitdfq.models import build
from vitdfq.models.bounds import fits_file
from vitdfq.models.building import require_runs
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize


def build_structure(spec: dict[str, Any], config: Path, file_bytes: int) -> tuple[nn.Module, nn.Module]:
    """Return (student, prepared float model) of a checked `spec`, both untrained; not larger than `file_bytes` can fill.

    Raises:
        InputError: this library or this timm cannot build it; it names `config`.
    """
    try:
        model = build(spec, most=fits_file(file_bytes))
        require_runs(model)
        prepared = prepare(model, **spec["prepare"]) if "prepare" in spec else model
        student = quantize(prepared, **spec["quantize"])
    except (ValueError, TypeError) as error:
        raise InputError(f"{config}: {one_line(error, most=None)}") from error
    student.vitdfq = spec
    return student, prepared
