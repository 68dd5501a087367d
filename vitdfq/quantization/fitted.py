"""Whether the quantizers of a student are fitted."""

from collections.abc import Iterator

from torch import nn

from vitdfq.quantization.modules import QuantConv2d, QuantLinear, QuantMatMul


def require_fitted(student: nn.Module, step: str, remedy: str | None = None) -> None:
    """Raise ValueError, naming the first quantizer that is not fitted, when `step` is about to compute with it."""
    for name, part, child in quantizers(student):
        if not all(bool(value.isfinite().all()) for value in part.get_submodule(child).buffers()):
            raise ValueError(f"{step}: {name}.{child} is not fitted; {remedy or f'put {step} after observe'}")


def quantizers(student: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Every site of a student, (name, module), and the name that a quantizer has there, in the order of registration."""
    for name, part in student.named_modules():
        if isinstance(part, QuantLinear | QuantConv2d | QuantMatMul):
            yield from ((name, part, child) for child, _ in part.named_children() if child.endswith("_quantizer"))
