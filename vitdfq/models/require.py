"""Checks of the model that a public function receives, each with one line that says what to pass instead."""

import json
import warnings
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from vitdfq.models.build import build
from vitdfq.models.same_model import first_difference
from vitdfq.models.wrappers import require_unwrapped

HALF = (torch.float16, torch.bfloat16)


def require_float(model: nn.Module, verb: str) -> None:
    """Raise ValueError unless `model` is a float model of this library, in float32 and eval mode; `verb` starts the message."""
    require_unwrapped(model, verb)
    record, kind = getattr(model, "vitdfq", None), type(model).__name__
    if not isinstance(record, dict):
        raise ValueError(f"{verb} takes what load_teacher returned; this {kind} is not opened: load_teacher(model) does it")
    if "quantize" in record or "integer" in record:
        raise ValueError(f"{verb} takes a float model; this {kind} is quantized already")
    require_ready(model, verb)


def warn_if_changed(model: Any, verb: str) -> None:
    """Warn when parts of a teacher were changed since `load_teacher`: its student works, and `save` will refuse it.

    A prepared model has other parts; it is compared when its student is saved.
    """
    if model.vitdfq.get("prepare", {}).get("steps"):
        return
    if difference := first_difference(model, _as_loaded(json.dumps(model.vitdfq["model"]))):
        changed = f"{verb}: this {type(model).__name__} is not as load_teacher returned it ({difference})"
        warnings.warn(f"{changed}: its student cannot be saved", stacklevel=4)  # of the caller of `verb`, which is decorated


@lru_cache(maxsize=32)
def _as_loaded(description: str) -> nn.Module:
    """The model of a description in JSON, without storage: built once, to compare with."""
    with torch.device("meta"):
        return build({"model": json.loads(description)})


def require_student(model: nn.Module, verb: str) -> None:
    """Raise ValueError unless `model` is what `quantize` returned, in float32 and eval mode; `verb` starts the message."""
    require_unwrapped(model, verb)
    record, kind = getattr(model, "vitdfq", None), type(model).__name__
    if isinstance(record, dict) and "integer" in record:
        raise ValueError(f"{verb} takes what quantize returned; this {kind} runs in integers: use its student")
    if not isinstance(record, dict) or "quantize" not in record:
        raise ValueError(f"{verb} takes what quantize returned; this {kind} is not quantized")
    require_ready(model, verb)
    _require_values(model, verb)


def require_ready(model: nn.Module, verb: str) -> None:
    """Raise ValueError when a model cannot compute with float32 images: no module, training mode, half precision."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"{verb} takes a model, not a {type(model).__name__}: load_teacher or load returns one")
    if model.training:
        raise ValueError(f"{verb}: the model is in training mode: call model.eval() first")
    for name, value in model.named_parameters():
        if value.dtype in HALF:
            raise ValueError(f"{verb} works in float32; {name} is in half precision ({value.dtype}): call model.float() first")
        if value.is_inference():
            raise ValueError(f"{verb}: {name} was made in torch.inference_mode() and cannot be trained: copy the model outside")


def require_float32(model: nn.Module, verb: str) -> None:
    """Raise ValueError when a parameter is not in float32, as checkpoints and images of data sets are, or has no values."""
    _require_values(model, verb)
    for name, value in model.named_parameters():
        if value.dtype != torch.float32:
            raise ValueError(f"{verb} works in float32; {name} is {value.dtype}: call model.float() first")


def _require_values(model: nn.Module, verb: str) -> None:
    for name, value in model.named_parameters():
        if value.is_meta:
            raise ValueError(f"{verb}: this {type(model).__name__} has no weights: {name} is on the meta device")
