"""Cut a watched model into units: a straight list of calls, cut where one tensor is all that later calls read of the images."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from vitdfq.models.watching.counting import multiplications_of
from vitdfq.models.watching.recorder import CannotRecordError, Recorder
from vitdfq.models.watching.tape import Tape
from vitdfq.models.watching.watch import Call, tensors_in

Both = tuple[Call, Call]  # the same call at both batch sizes


@dataclass(frozen=True)
class Segment:
    """One unit: what it runs, on the tensor that the unit before wrote, and the modules that it calls."""

    name: str
    tape: Tape  # of the model
    modules: tuple[str, ...]


def segments(top: Both, owners: set[str], batches: tuple[int, int]) -> list[Segment]:
    """Return the units of a model, first to last: "embed", one for each block or so, "head".

    Args:
        top: the call of the model.
        owners: names of the modules that were opened; their calls stay whole.
        batches: the two batch sizes.

    Raises:
        CannotRecordError: there is no cut, or some unit depends on the batch in an unknown way.
    """
    calls = flattened(top, owners)
    bounds = grouped(calls, cuts(calls, top), owners)
    if len(bounds) < 3:
        raise CannotRecordError("no single tensor connects two parts of the model")
    named: list[Segment] = []
    entries = [(top[0].args[0], top[1].args[0]), *(_written(calls, end) for end in bounds[:-1])]
    starts = [0, *bounds[:-1]]
    for index, (start, end) in enumerate(zip(starts, bounds, strict=True)):
        is_last = end == bounds[-1]
        output = (top[0].output, top[1].output) if is_last else _written(calls, end)
        name = "embed" if index == 0 else "head" if is_last else _name(calls[start:end], [part.name for part in named])
        tape = _tape(top, calls, (start, end), entries[index], output, batches)
        modules = dict.fromkeys(large.name for _, large in calls[start:end] if large.name)
        named.append(Segment(name, tape, tuple(modules)))
    return named


def flattened(top: Both, owners: set[str]) -> list[Both]:
    """Return the calls that make up the model, in order: those of containers of several opened modules one by one."""

    def is_container(call: Call) -> bool:
        if call.name is None or call.name in owners:
            return False
        inside = sum(part.name in owners for part in call.walk() if part.name is not None)
        return inside > 1 or (isinstance(call.target, nn.Sequential) and bool(call.inner))

    found: list[Both] = []

    def add(small: Call, large: Call) -> None:
        for pair in zip(small.inner, large.inner, strict=True):
            if is_container(pair[1]):
                add(*pair)
            else:
                found.append(pair)

    add(*top)
    return found


def cuts(calls: Sequence[Both], top: Both) -> list[int]:
    """Return the numbers of calls after which one tensor holds all that is known of the images."""
    last_read: dict[int, int] = {}
    for index, (_, large) in enumerate(calls):
        last_read |= dict.fromkeys(map(id, _read(large)), index)
    last_read |= dict.fromkeys(map(id, tensors_in(top[1].output)), len(calls))
    alive = {id(tensor) for tensor in tensors_in(top[1].args)}
    found = []
    for index, (_, large) in enumerate(calls):
        alive |= {id(tensor) for tensor in tensors_in(large.output) if tensor.requires_grad}
        alive = {tensor for tensor in alive if last_read.get(tensor, -1) > index}
        written = [tensor for tensor in tensors_in(large.output) if tensor.requires_grad]
        if len(alive) == 1 and len(written) == 1 and id(written[0]) in alive:
            found.append(index + 1)
    return found


def _read(call: Call) -> list[Tensor]:
    return tensors_in((call.args, call.kwargs))


def grouped(calls: Sequence[Both], places: Sequence[int], owners: set[str]) -> list[int]:
    """Return the ends of the units: each but the first and the last has an opened module or 2 % of the multiplications."""
    work = [_work(large) for _, large in calls]
    opened = [any(part.name in owners for part in large.walk() if part.name is not None) for _, large in calls]
    pieces = list(pairwise([0, *places]))  # without what comes behind the last cut
    heavy = [end for start, end in pieces if any(opened[start:end]) or sum(work[start:end]) * 50 >= sum(work)]
    first = next((end for start, end in pieces if sum(work[start:end])), len(calls))
    inner = [end for end in heavy if end > first]
    tail = [end for end in inner if any(opened[end:]) or sum(work[end:])]  # something is left for the head
    return [first, *tail, len(calls)]


def _work(call: Call) -> int:
    return sum(map(multiplications_of, call.walk()))


def _written(calls: Sequence[Both], end: int) -> tuple[Tensor, Tensor]:
    small, large = calls[end - 1]
    index = next(i for i, tensor in enumerate(tensors_in(large.output)) if tensor.requires_grad)
    return tensors_in(small.output)[index], tensors_in(large.output)[index]


def _name(calls: Sequence[Both], taken: Sequence[str]) -> str:
    """The name of the module that does most of the work, with a number where another unit has it."""
    modules = {large.name: _work(large) for _, large in calls if large.name}
    name = max(modules, key=lambda module: modules[module], default="part")
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}#{number}"
    return free


def _tape(
    top: Both,
    calls: Sequence[Both],
    bounds: tuple[int, int],
    entry: tuple[Tensor, Tensor],
    output: tuple[object, object],
    batches: tuple[int, int],
) -> Tape:
    """Return the tape from one tensor to an output, with what calls before it compute from the parameters alone."""
    start, end = bounds
    needed = {id(tensor) for _, large in calls[start:end] for tensor in _read(large)} | {
        id(part) for part in tensors_in(output[1])
    }
    chosen: list[Both] = list(calls[start:end])
    for small, large in reversed(calls[:start]):
        written = tensors_in(large.output)
        if any(id(part) in needed for part in written) and not any(part.requires_grad for part in written):
            chosen.insert(0, (small, large))
            needed |= {id(tensor) for tensor in _read(large)}
    recorder = Recorder((top[0].target, top[1].target), ((entry[0],), (entry[1],)), ({}, {}), batches)
    for small, large in chosen:
        recorder.add_call(small, large)
    return recorder.tape(output)
