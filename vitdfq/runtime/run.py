"""How work is run, as the numeric core sees it. `Run()` runs alone, silently, and keeps nothing.

The core's long functions take one optional `run`. From Python it may be left out. The command line passes a `SharedRun`
(`shared_run.py`), which draws progress bars, keeps finished parts in a folder and shares work over processes.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from vitdfq.common.tensor_dicts import Tensors

if TYPE_CHECKING:  # the command line imports this file before it needs torch
    from torch import Tensor

S = TypeVar("S")  # a sequence, or a tensor
T = TypeVar("T")
R = TypeVar("R")


class Progress:
    """Counts the steps of one piece of work; a context manager. This one shows nothing."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        """Finish, also where the work failed."""

    def advance(self, steps: int = 1, /, **numbers: float) -> None:
        """Count `steps` that were just done; `numbers` are losses and the like, by name."""
        self.done += steps

    def skip(self, steps: int) -> None:
        """Count `steps` that an earlier, interrupted start did: they say nothing of the speed."""
        self.done += steps


class Run:
    """One process that works alone. Subclasses share work over processes, keep parts and show progress.

    Attributes:
        index: number of this process, from 0.
        count: how many processes there are.
    """

    index: int = 0
    count: int = 1

    def progress(self, title: str, total: int) -> Progress:
        """Open the progress of `total` steps of the work called `title`."""
        return Progress(total)

    def part(self, name: str) -> "Run":
        """The same run, with a name space of its own for the parts that it keeps."""
        return self

    def resume(self, name: str) -> Tensors | None:
        """The part that an interrupted start saved under `name`; None if there is none. All processes get the same."""
        return None

    def checkpoint(self, name: str, tensors: Tensors) -> None:
        """Save a part, over an older one of that name; every process calls it with the same tensors."""

    def forget(self) -> None:
        """Drop all saved parts: the work that they belong to is finished."""

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the parts that `compute_missing` would compute."""
        return list(names)

    def compute_missing(self, names: Iterable[str], compute: Callable[[str], Tensors]) -> list[Tensors]:
        """The parts of these names, in their order. Missing ones are computed, each in one of the processes, and saved."""
        return self.split(list(names), compute)

    def share(self, parts: S) -> S:
        """The parts (or rows of a tensor) that this process works on: every `count`-th, from `index`."""
        return parts[self.index :: self.count]  # type: ignore[index]

    def split(self, parts: Sequence[T], do: Callable[[T], R]) -> list[R]:
        """Do every part in one of the processes; the results, in the order of the parts, in every process."""
        return [do(part) for part in parts]

    def total(self, value: "Tensor") -> "Tensor":
        """The sum of each process's tensor; `value` may be overwritten by it."""
        return value

    def agree(self, tensors: Tensors) -> Tensors:
        """The main process's tensors, in every process, so that all go on from the same numbers."""
        return tensors
