"""Make a tape of calls that were watched at two batch sizes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.models.watching.tape import Like, Own, PerBatch, Slot, Step, Tape
from vitdfq.models.watching.watch import Call, tensors_in

Pair = tuple[Any, Any]  # the same value at both batch sizes


class CannotRecordError(ValueError):
    """The calls at two batch sizes do not show what happens at a third."""


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
                return (
                    PerBatch(times // by, 1)
                    if times % by == 0
                    else PerBatch(1, by // times)
                    if by % times == 0
                    else PerBatch(times, by)
                )
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
        values: Sequence[tuple[str, Any]] = [
            *part.named_parameters(recurse=False),
            *part.named_buffers(recurse=False),
            *vars(part).items(),
        ]
        for key, value in values:
            if isinstance(value, Tensor):
                found.setdefault(id(value), f"{name}.{key}" if name else key)
    return found
