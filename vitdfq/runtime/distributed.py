"""Several processes that do one run together (accelerate, torch.distributed): rank, shares of work, collective operations.

No launcher is needed: a single process has every share. Work is cut into parts in a way that does not depend on the number of
processes, and results are put together in the order of the parts, so that two processes compute what one does.
"""

import atexit
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from vitdfq.common.errors import LaunchError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
R = TypeVar("R")
FAILURE_TIMEOUT = timedelta(minutes=10)  # for the other processes to fail as this one did
_started = False  # a process group that the caller opened is not ours
_failed: Any = None  # a group of its own for failures, so that its barrier cannot be confused with other collectives


def start() -> "torch.device":
    """Join the other processes of this launch, if there are any; return the device of this one.

    Before this call a process works by itself, also under a launcher.

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
        atexit.register(accelerator.end_training)  # NCCL needs an orderly end
        if launched > 1:
            from torch import distributed

            _failed = distributed.new_group(backend="gloo", timeout=FAILURE_TIMEOUT)
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


def is_reporting() -> bool:
    """Whether this process reports to the user: the main one, which before `start` only the launcher knows."""
    return is_main() if _started else int(os.environ.get("RANK", 0)) == 0


def gathered(mine: T) -> list[T]:
    """Each process's object, in the order of the processes, in every process. Tensors must be on the CPU."""
    group = _group()
    if group is None:
        return [mine]
    gathered_objects: list[Any] = [None] * count()
    group.all_gather_object(gathered_objects, mine)
    return gathered_objects


def from_main(make: Callable[[], T]) -> T:
    """The result, or the exception, of `make` in the main process, which alone calls it."""
    group = _group()
    if group is None:
        return make()
    outcome: list[Any] = [(None, None)]
    if is_main():
        try:
            outcome = [(make(), None)]
        except Exception as error:
            outcome = [(None, error)]
    group.broadcast_object_list(outcome, src=0)
    result, failure = outcome[0]
    if failure is not None:
        raise failure
    return result


def agreed(tensors: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """The main process's tensors, in every process: where devices round differently, all go on from the same numbers."""
    return tensors if count() == 1 else from_main(lambda: {name: value.detach().cpu() for name, value in tensors.items()})


def failed_in_all() -> bool:
    """Whether every process has failed; called by one that has. Otherwise the others wait elsewhere."""
    group = _group()
    if group is None:
        return True
    try:
        group.barrier(_failed)
    except RuntimeError:  # some process did not arrive
        return False
    return True


def share(parts: Sequence[T]) -> Sequence[T]:
    """The parts that this process works on."""
    return parts[index() :: count()]


def shared_out(parts: Sequence[T], do: Callable[[T], R], done: Callable[[T, R], None] = lambda part, result: None) -> list[R]:
    """Do all parts, each in one process; return the results in the order of the parts, to every process.

    In a round, every process does one part; when it is over, `done(part, result)` is called for each of them in every process.

    Raises:
        Exception: of the first part that failed, in every process, when its round is over.
    """
    results: list[R] = []
    for first in range(0, len(parts), count()):
        turn = parts[first : first + count()]
        result: Any = None
        failure: Exception | None = None
        if index() < len(turn):
            try:
                result = do(turn[index()])
            except Exception as error:
                failure = error
        outcomes = list(zip(turn, gathered((result, failure)), strict=False))
        for part, (value, failed) in outcomes:
            if failed is None:
                done(part, value)
                results.append(value)
        for _, (_, failed) in outcomes:
            if failed is not None:
                raise failed
    return results


def summed(value: "torch.Tensor") -> "torch.Tensor":
    """The sum of each process's tensor, in place. Of two numbers the order does not matter; of more it can, in the last digit."""
    if group := _group():
        group.all_reduce(value)
    return value


def _group() -> Any:
    """torch.distributed, if these processes have met here; torch is not loaded just to ask."""
    if not _started:
        return None
    from torch import distributed

    return distributed if distributed.is_available() and distributed.is_initialized() else None
