"""The run of the command line: progress bars, parts kept in a folder, work shared over processes."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from torch import Tensor

from vitdfq.runtime import distributed
from vitdfq.runtime.partial_results import PartialResults
from vitdfq.runtime.progress import Listener, ProgressBar
from vitdfq.runtime.run import Progress, Run, Tensors

T = TypeVar("T")
R = TypeVar("R")


class SharedRun(Run):
    """All processes of this launch work together.

    Args:
        parts: keeps what is finished; without a folder nothing is kept.
        listeners: receive the numbers of every progress bar.
    """

    def __init__(self, parts: PartialResults | None = None, listeners: Sequence[Listener] = ()) -> None:
        self.parts, self.listeners = parts or PartialResults(), listeners
        self.index, self.count = distributed.index(), distributed.count()

    def progress(self, title: str, total: int) -> Progress:
        return ProgressBar(title, total, self.listeners)

    def part(self, name: str) -> "SharedRun":
        return SharedRun(self.parts.part(name), self.listeners)

    def resume(self, name: str) -> Tensors | None:
        return self.parts.get(name)

    def checkpoint(self, name: str, tensors: Tensors) -> None:
        self.parts.put(name, tensors)

    def forget(self) -> None:
        self.parts.clear()

    def missing(self, names: Iterable[str]) -> list[str]:
        return self.parts.missing(names)

    def compute_missing(self, names: Iterable[str], compute: Callable[[str], Tensors]) -> list[Tensors]:
        return self.parts.compute_missing(names, compute)

    def split(self, parts: Sequence[T], do: Callable[[T], R]) -> list[R]:
        return distributed.shared_out(parts, do)

    def total(self, value: Tensor) -> Tensor:
        return distributed.summed(value)

    def agree(self, tensors: Tensors) -> Tensors:
        return distributed.agreed(tensors)
