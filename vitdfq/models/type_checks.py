"""What kind of model a function was given: one of this library's, float or quantized."""

from torch import nn


def require_float(model: nn.Module, verb: str) -> None:
    """Raise ValueError when `model` was not loaded by this library, or is a student."""
    record, kind = getattr(model, "vitdfq", None), type(model).__name__
    if not isinstance(record, dict):
        raise ValueError(f"{verb} takes what load_teacher returned; this {kind} is not opened: load_teacher(model) does it")
    if "quantize" in record or "integer" in record:
        raise ValueError(f"{verb} takes a float model; this {kind} is quantized already")


def require_student(model: nn.Module, verb: str) -> None:
    """Raise ValueError when `model` is no student."""
    record = getattr(model, "vitdfq", None)
    if isinstance(record, dict) and "integer" in record:
        raise ValueError(f"{verb} takes what quantize returned; this {type(model).__name__} runs in integers: use its student")
    if not isinstance(record, dict) or "quantize" not in record:
        raise ValueError(f"{verb} takes what quantize returned; this {type(model).__name__} is not quantized")
