"""Several processes that do one run together: which of them this is, what its share is, what all of them found (accelerate).

Nothing here needs a launcher: a process by itself has every share, and hears only from itself. Work is cut into parts in a way
that does not depend on how many processes there are, and what the parts give is put together in their order, so that two
processes find what one does.
"""

import atexit
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from vitdfq.common.errors import LaunchError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
R = TypeVar("R")
PATIENCE = timedelta(minutes=10)  # with a process that may be failing as this one did
_started = False  # a process group of the caller's own is none of ours
_failed: Any = None  # where those that failed meet: what they say there is never taken for what others wait for elsewhere


def start() -> "torch.device":
    """Meet the other processes of this launch, if there are any; return the device of this one.

    Until this is called a process works by itself, also under a launcher.

    Raises:
        LaunchError: the launcher started several processes that do not see each other; each would write the same files.
    """
    global _started, _failed
    from accelerate import Accelerator, InitProcessGroupKwargs

    # One process may wait for hours for another's batch of images; the usual limit is ten minutes.
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=7))])
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes != launched:
        raise LaunchError(
            f"the launcher started {launched} processes, but each sees {accelerator.num_processes}: they would write the same "
            "files; on CPUs set ACCELERATE_USE_CPU=true and launch with --multi_gpu, or use torchrun"
        )
    if not _started:
        atexit.register(accelerator.end_training)  # NCCL wants to be told
        if launched > 1:
            from torch import distributed

            _failed = distributed.new_group(backend="gloo", timeout=PATIENCE)
    _started = True
    return accelerator.device


def count() -> int:
    """How many processes there are."""
    return group.get_world_size() if (group := _group()) else 1


def index() -> int:
    """Which of them this is, from 0."""
    return group.get_rank() if (group := _group()) else 0


def is_main() -> bool:
    """Whether this process writes files."""
    return index() == 0


def speaks() -> bool:
    """Whether this process speaks: the main one, which before `start` only the launcher knows."""
    return is_main() if _started else int(os.environ.get("RANK", 0)) == 0


def gathered(mine: T) -> list[T]:
    """What each process has, in the order of the processes; every process gets all of it. Tensors must be on the CPU."""
    group = _group()
    if group is None:
        return [mine]
    found: list[Any] = [None] * count()
    group.all_gather_object(found, mine)
    return found


def from_main(make: Callable[[], T]) -> T:
    """What `make` returns, or raises, in the main process; it is called in no other."""
    group = _group()
    if group is None:
        return make()
    said: list[Any] = [(None, None)]
    if is_main():
        try:
            said = [(make(), None)]
        except Exception as error:
            said = [(None, error)]
    group.broadcast_object_list(said, src=0)
    found, failure = said[0]
    if failure is not None:
        raise failure
    return found


def agreed(tensors: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """The main process's tensors, in every process: where devices round differently, all go on from the same numbers."""
    return tensors if count() == 1 else from_main(lambda: {name: value.detach().cpu() for name, value in tensors.items()})


def failed_in_all() -> bool:
    """Whether every process has failed; asked by one that has. The others may wait for it elsewhere: then it must not go on."""
    group = _group()
    if group is None:
        return True
    try:
        group.barrier(_failed)
    except RuntimeError:  # somebody did not come
        return False
    return True


def share(parts: Sequence[T]) -> Sequence[T]:
    """The parts that this process does."""
    return parts[index() :: count()]


def shared_out(parts: Sequence[T], do: Callable[[T], R], done: Callable[[T, R], None]) -> list[R]:
    """Do all parts, each in one process; return the results in the order of the parts, to every process.

    In a round, every process does one part; when it is over, `done(part, result)` is called for each of them in every process.

    Raises:
        Exception: of the first part that failed, in every process, when its round is over.
    """
    results = []
    for first in range(0, len(parts), count()):
        turn = parts[first : first + count()]
        result, failure = None, None
        if index() < len(turn):
            try:
                result = do(turn[index()])
            except Exception as error:
                failure = error
        said = list(zip(turn, gathered((result, failure)), strict=False))
        for part, (found, failed) in said:
            if failed is None:
                done(part, found)
                results.append(found)
        for _, (_, failed) in said:
            if failed is not None:
                raise failed
    return results


def summed(value: "torch.Tensor") -> "torch.Tensor":
    """The sum of each process's tensor, in place. Of two numbers the order does not matter; of more it can, in the last digit."""
    if group := _group():
        group.all_reduce(value)
    return value


def sum_gradients(parameters: "Iterable[torch.Tensor]") -> None:
    """Replace each parameter's gradient by the sum over the processes; one without a gradient counts as zero."""
    if count() == 1:
        return
    import torch

    parameters = list(parameters)
    flat = [torch.zeros_like(own).flatten() if own.grad is None else own.grad.flatten() for own in parameters]
    sums = summed(torch.cat(flat)).split([own.numel() for own in parameters])  # one message instead of hundreds
    for own, total in zip(parameters, sums, strict=True):
        own.grad = total.view_as(own).clone()


def _group() -> Any:
    """torch.distributed, if these processes have met here; torch is not loaded just to ask."""
    if not _started:
        return None
    from torch import distributed

    return distributed if distributed.is_available() and distributed.is_initialized() else None
