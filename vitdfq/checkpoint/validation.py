"""Checks of a checkpoint: its tensors against the structure before any is read, and the values that were read."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.checkpoint import state_dict
from vitdfq.common.errors import InputError, one_line
from vitdfq.common.safetensors_io import Header, dtype_name, not_finite
from vitdfq.models import build, image_size
from vitdfq.models.attention import has_hooks
from vitdfq.models.block_maps import in_one
from vitdfq.models.build import require_runs
from vitdfq.models.same_model import first_difference
from vitdfq.models.untrusted import fits_file, short
from vitdfq.preparation.prepare import prepared_copy
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import named_weighted_modules
from vitdfq.quantization.quantizers.base import Quantizer

ROUNDING = 0.05  # of the logits: where a device's kernels do not repeat their last digits, rounding steps differ; no work is lost
_known_to_run: set[str] = set()  # descriptions of models, so that a process that saves and loads often tries each of them once


def build_structure(spec: dict[str, Any], config: Path, file_bytes: int) -> tuple[nn.Module, nn.Module]:
    """Return (student, prepared float model) of a checked `spec`, both untrained; not larger than `file_bytes` can fill.

    Raises:
        InputError: this library or this timm cannot build it; it names `config`.
    """
    try:
        model = build(spec, most=fits_file(file_bytes))
        description = json.dumps(spec["model"])
        if description not in _known_to_run:
            require_runs(model)
            _known_to_run.add(description)
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


@torch.no_grad()
def require_rebuilds(student: Any, tensors: state_dict.Tensors) -> None:
    """Check that `load` would return `student`: build and fill it again, compare its parts, and its logits on one image.

    Raises:
        ValueError: the student was changed in a way that its description and its tensors do not express.
    """
    kind, lost = type(student).__name__, "a checkpoint holds weights and settings alone; undo the change"
    num_bytes = sum(value.nbytes for value in tensors.values())
    with torch.random.fork_rng(devices=[]):  # an untrained model is drawn at random
        rebuilt, _ = build_structure(json.loads(json.dumps(student.vitdfq)), Path("save"), num_bytes)
    if difference := first_difference(student, rebuilt, besides=["weight_on_grid"]):  # rounded already, or at each pass
        raise ValueError(f"save: load would not return this {kind}: {difference}; {lost}")
    state_dict.fill(rebuilt, {name: value.cpu() for name, value in tensors.items()})
    for name, layer in named_weighted_modules(student):
        stored: Any = rebuilt.get_submodule(name).weight
        if layer.weight_on_grid and (layer.weight.cpu() - stored).abs().max() > 1e-5 * stored.abs().max():
            raise ValueError(f"save: load would not return this {kind}: {name}.weight was changed since calibrate; {lost}")
    rebuilt.to(device := next(student.parameters()).device)
    image = torch.rand(1, 3, *image_size(student), generator=torch.Generator().manual_seed(0)).to(device)
    logits, loaded = in_one(student(image)), in_one(rebuilt.eval()(image))
    hooked = [name or kind for name, part in student.named_modules() if has_hooks(part)]
    error = (logits - loaded).norm() / loaded.norm()
    if error > (0 if hooked else ROUNDING):
        cause = f"a hook of {hooked[0]} changes its logits" if hooked else "its logits would be others"
        raise ValueError(f"save: load would not return this {kind}: {cause}; {lost}")
