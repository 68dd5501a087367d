"""How many images at a time memory holds (accelerate)."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Fitting:
    """Calls a function with a number of images at a time, and with half as many, and so on, where memory does not suffice.

    What was found is remembered: the next call begins with it. Each process finds its own.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, do: Callable[[int], T]) -> T:
        """Return `do(size)`.

        Raises:
            MemoryError: one at a time is too many.
        """
        from accelerate.utils.memory import find_executable_batch_size

        return find_executable_batch_size(do, starting_batch_size=self.size, reduce_batch_size_fn=self._halved)()

    def _halved(self) -> int:
        if self.size == 1:
            raise MemoryError("out of memory with one image at a time")
        self.size //= 2
        return self.size
