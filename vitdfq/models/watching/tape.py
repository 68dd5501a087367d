"""A straight list of calls that was watched at two batch sizes, to be run again at any.

A tape is for images of one size: whatever its code decided by the shape of a tensor is decided for good, and `fits` says of
other arguments whether it was decided for them too. Only numbers in proportion to the batch are computed again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from vitdfq.models.watching.watch import tensors_in


@dataclass(frozen=True)
class Slot:
    """A tensor that an argument or an earlier step gave."""

    index: int


@dataclass(frozen=True)
class Own:
    """A tensor of the module: a parameter or a buffer, looked up at every run."""

    name: str


@dataclass(frozen=True)
class PerBatch:
    """A number in proportion to the batch: the length of a dimension of an argument, times and by these factors."""

    times: int
    by: int


@dataclass(frozen=True)
class Like:
    """What the first tensor argument has: "device" or "dtype"."""

    attribute: str


@dataclass(frozen=True)
class Step:
    """A call of a function, which first receives the submodules `parts`, or of the submodule `target`."""

    target: Callable[..., Any] | str
    args: Any
    kwargs: Any
    outputs: tuple[int, ...]  # slots of the tensors that it returns
    parts: tuple[str, ...] = ()

    def text(self) -> str:
        """Return one line, such as "[4] = matmul(q, [2])"."""
        name = self.target if isinstance(self.target, str) else name_of(self.target)
        values = [*self.parts, *map(_text, self.args), *(f"{key}={_text(value)}" for key, value in self.kwargs.items())]
        return f"{', '.join(f'[{slot}]' for slot in self.outputs)} = {name}({', '.join(values)})"


def name_of(func: Any) -> str:
    """Return the name of a function, or of the attribute that a getter reads."""
    return getattr(func.__self__, "__name__", "get") if func.__name__ == "__get__" else func.__name__


def _text(value: Any) -> str:
    match value:
        case Slot(index):
            return f"[{index}]"
        case Own(name) | Like(name):
            return name
        case PerBatch(times, by):
            return f"batch*{times}/{by}"
        case list() | tuple():
            return f"({', '.join(map(_text, value))})"
        case _:
            return str(value)


@final
@dataclass(frozen=True)
class Tape:
    """Steps from arguments to an output; no step is changed later, so that copies of a model share its tapes."""

    args: Any  # the pattern of the arguments, with a `Slot` for each tensor
    kwargs: Any
    shapes: tuple[tuple[int | None, ...], ...]  # of the tensor arguments; None for a length in proportion to the batch
    base: tuple[int, int] | None  # slot and dimension of the argument by which `PerBatch` is computed
    steps: tuple[Step, ...]
    output: Any
    last_reads: tuple[tuple[int, ...], ...] = field(default=())  # per step, the slots that nothing later reads

    def __deepcopy__(self, memo: Any) -> "Tape":
        return self

    def text(self) -> str:
        """Return all steps, one a line."""
        return "\n".join([*(step.text() for step in self.steps), f"return {_text(self.output)}"])

    def fits(self, args: Any, kwargs: Any) -> bool:
        """Return whether the arguments are like those that were watched, up to the batch."""
        tensors = tensors_in((args, kwargs))
        if len(tensors) != len(self.shapes) or not _same(self.args, args) or not _same(self.kwargs, kwargs):
            return False
        pairs = zip(tensors, self.shapes, strict=True)
        return all(
            tensor.ndim == len(shape) and all(side is None or side == n for side, n in zip(shape, tensor.shape, strict=True))
            for tensor, shape in pairs
        )

    def run(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Run the steps of a module on arguments that fit."""
        slots: dict[int, Tensor] = dict(enumerate(tensors_in((args, kwargs))))
        first = next(iter(slots.values()), None)
        size = None if self.base is None else slots[self.base[0]].shape[self.base[1]]

        def value(pattern: Any) -> Any:
            match pattern:
                case Slot(index):
                    return slots[index]
                case Own(name):
                    return attribute(module, name)
                case PerBatch(times, by):
                    assert size is not None
                    return size * times if by == 1 else size * times // by if times > 1 else size // by
                case Like(name):
                    return getattr(first, name)
                case slice():
                    return slice(value(pattern.start), value(pattern.stop), value(pattern.step))
                case list() | tuple():
                    return type(pattern)(value(part) for part in pattern)
                case dict():
                    return {key: value(part) for key, part in pattern.items()}
                case _:
                    return pattern

        for step, done in zip(self.steps, self.last_reads, strict=True):
            function = module.get_submodule(step.target) if isinstance(step.target, str) else step.target
            parts = (module.get_submodule(name) for name in step.parts)
            output = function(*parts, *value(step.args), **value(step.kwargs))
            slots.update(zip(step.outputs, tensors_in(output), strict=True))
            for slot in done:
                del slots[slot]
        return value(self.output)


def attribute(module: nn.Module, name: str) -> Tensor:
    """Return the tensor of a dotted name."""
    owner, _, last = name.rpartition(".")
    return getattr(module.get_submodule(owner), last)


def _same(pattern: Any, value: Any) -> bool:
    """Whether a value has a pattern's form, and its constants."""
    if isinstance(pattern, Slot):
        return isinstance(value, Tensor)
    if isinstance(pattern, PerBatch):
        return isinstance(value, int | torch.SymInt)
    if isinstance(pattern, dict):
        return isinstance(value, Mapping) and pattern.keys() == value.keys() and all(_same(pattern[k], value[k]) for k in pattern)
    if isinstance(pattern, list | tuple):
        is_alike = isinstance(value, list | tuple) and len(value) == len(pattern)
        return is_alike and all(_same(part, given) for part, given in zip(pattern, value, strict=True))
    return isinstance(pattern, Like) or (not isinstance(value, Tensor) and bool(pattern == value))
