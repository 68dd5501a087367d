"""The run of the command line: progress bars, parts kept in a folder, work shared over processes."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from torch import Tensor

from vitdfq.runtime import distributed
from vitdfq.runtime.loss_recorder import LossRecorder
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
        recorder: keeps the losses among them; None: they are not kept.
        name: of this part of the run, for the recorder.
    """

    def __init__(
        self,
        parts: PartialResults | None = None,
        listeners: Sequence[Listener] = (),
        recorder: LossRecorder | None = None,
        name: str = "",
    ) -> None:
        self.parts, self.listeners = parts or PartialResults(), listeners
        self.recorder, self.name = recorder, name
        self.index, self.count = distributed.index(), distributed.count()

    def progress(self, title: str, total: int) -> Progress:
        recording = () if self.recorder is None else (partial(self.recorder.record, self.name),)
        return ProgressBar(title, total, (*self.listeners, *recording))

    def part(self, name: str) -> "SharedRun":
        return SharedRun(self.parts.part(name), self.listeners, self.recorder, f"{self.name}/{name}".strip("/"))

    def resume(self, name: str) -> Tensors | None:
        return self.parts.get(name)

    def checkpoint(self, name: str, tensors: Tensors) -> None:
        self.parts.put(name, tensors)

    def forget(self) -> None:
        self.parts.clear()
        if self.recorder is not None:
            self.recorder.write()

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
