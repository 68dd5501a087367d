"""A straight list of calls that was watched at two batch sizes, to be run again at any.

A tape is for images of one size: whatever its code decided by the shape of a tensor is decided for good, and `fits` says of
other arguments whether it was decided for them too. Only numbers in proportion to the batch are computed again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from vitdfq.models.watching import Call, tensors_in

Pair = tuple[Any, Any]  # the same value at both batch sizes


class CannotRecordError(ValueError):
    """The calls at two batch sizes do not show what happens at a third."""


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


class Recorder:
    """Turns values that were seen at two batch sizes into patterns, and calls into steps.

    Args:
        module: the ghosts of the module whose tensors the steps may read, at both batch sizes.
        args, kwargs: what it was called with, at both.
        batches: the two batch sizes.
    """

    def __init__(self, module: tuple[nn.Module, nn.Module], args: Pair, kwargs: Pair, batches: tuple[int, int]) -> None:
        self.batches = batches
        self.own: tuple[dict[int, str], dict[int, str]] = (own_tensors(module[0]), own_tensors(module[1]))
        self.names = {part: name for name, part in reversed(list(module[0].named_modules(remove_duplicate=False)))}
        self.slots: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.count = 0
        self.steps: list[Step] = []
        given = tuple(tensors_in((args[side], kwargs[side])) for side in (0, 1))
        self.inputs = list(zip(*given, strict=True))
        self.dtype = next((small.dtype for small, _ in self.inputs if small.is_floating_point()), None)
        self.base: tuple[int, int] | None = None
        self.base_factor = 1
        self.shapes = []
        for index, (small, large) in enumerate(self.inputs):
            self.shapes.append(tuple(a if a == b else None for a, b in zip(small.shape, large.shape, strict=True)))
            if self.base is None and None in self.shapes[-1]:
                self.base = (index, self.shapes[-1].index(None))
                self.base_factor = self._factor(*(part.shape[self.base[1]] for part in (small, large)))
        self.new_slots((args[0], kwargs[0]), (args[1], kwargs[1]))
        self.args, self.kwargs = self.pattern(*args), self.pattern(*kwargs)

    def _factor(self, small: int, large: int) -> int:
        if small % self.batches[0] or small * self.batches[1] != large * self.batches[0]:
            raise CannotRecordError(f"a number is {small} for {self.batches[0]} images and {large} for {self.batches[1]}")
        return small // self.batches[0]

    def new_slots(self, small: Any, large: Any) -> tuple[int, ...]:
        """Return the slots of the tensors in an output; a tensor that was seen before keeps its slot."""
        found = []
        for a, b in zip(tensors_in(small), tensors_in(large), strict=True):
            if id(a) not in self.slots[0]:
                self.slots[0][id(a)], self.count = self.count, self.count + 1
            self.slots[1].setdefault(id(b), self.slots[0][id(a)])
            found.append(self.slots[0][id(a)])
        return tuple(found)

    def pattern(self, small: Any, large: Any) -> Any:
        """Return the pattern of a value.

        Raises:
            CannotRecordError: a tensor from elsewhere, or a value that depends on the batch in another way than in proportion.
        """
        match small:
            case Tensor():
                return self._tensor(small, large)
            case torch.device():
                return Like("device")
            case torch.dtype():
                return Like("dtype") if small == self.dtype else small
            case slice():
                return slice(*(self.pattern(getattr(small, k), getattr(large, k)) for k in ("start", "stop", "step")))
            case dict():
                return {key: self.pattern(part, large[key]) for key, part in small.items()}
            case list():
                return [self.pattern(a, b) for a, b in zip(small, large, strict=True)]
            case tuple():  # a torch.Size too
                return tuple(self.pattern(a, b) for a, b in zip(small, large, strict=True))
            case int() if small != large and self.base is not None:
                times, by = self._factor(small, large), self.base_factor
                return PerBatch(times // by, 1) if times % by == 0 else PerBatch(1, by // times) if by % times == 0 else PerBatch(times, by)
        if small != large:
            raise CannotRecordError(f"{small!r} becomes {large!r} in a larger batch")
        return small

    def _tensor(self, small: Tensor, large: Tensor) -> Slot | Own:
        slots = [known.get(id(part)) for known, part in zip(self.slots, (small, large), strict=True)]
        if slots[0] is not None and slots[0] == slots[1]:
            return Slot(slots[0])
        names = [known.get(id(part)) for known, part in zip(self.own, (small, large), strict=True)]
        if names[0] is not None and names[0] == names[1]:
            return Own(names[0])
        raise CannotRecordError("it reads a tensor that neither its arguments nor its parameters give")

    def add(self, target: Any, args: Pair, kwargs: Pair, outputs: Pair, parts: tuple[str, ...] = ()) -> None:
        """Append a step."""
        patterns = self.pattern(*args), self.pattern(*kwargs)
        self.steps.append(Step(target, *patterns, self.new_slots(*outputs), parts))

    def add_call(self, small: Call, large: Call) -> None:
        """Append the step of a call, as it was."""
        target = small.target if small.name is None else self.names[small.target]
        self.add(target, (small.args, large.args), (small.kwargs, large.kwargs), (small.output, large.output))

    def tape(self, output: Pair) -> Tape:
        """Return the tape of the steps so far."""
        pattern = self.pattern(*output)
        reads = [{slot.index for slot in slots_in((step.args, step.kwargs))} for step in self.steps]
        later, last = {slot.index for slot in slots_in(pattern)}, []
        for step, read in zip(reversed(self.steps), reversed(reads), strict=True):
            last.append(tuple(sorted((read | set(step.outputs)) - later)))
            later |= read
        shapes = tuple(self.shapes)
        return Tape(self.args, self.kwargs, shapes, self.base, tuple(self.steps), pattern, tuple(reversed(last)))


def slots_in(pattern: Any) -> list[Slot]:
    """Return the slots in a pattern."""
    match pattern:
        case Slot():
            return [pattern]
        case slice():
            return slots_in((pattern.start, pattern.stop, pattern.step))
        case dict():
            return slots_in(tuple(pattern.values()))
        case list() | tuple():
            return [slot for part in pattern for slot in slots_in(part)]
        case _:
            return []


def own_tensors(module: nn.Module) -> dict[int, str]:
    """Return the names of a module's parameters, buffers and other tensors by their id."""
    found: dict[int, str] = {}
    for name, part in module.named_modules():
        values: Sequence[tuple[str, Any]] = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False), *vars(part).items()]
        for key, value in values:
            if isinstance(value, Tensor):
                found.setdefault(id(value), f"{name}.{key}" if name else key)
    return found
