"""How many images at a time memory holds (accelerate)."""

import logging
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class AdaptiveBatchSize:
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
        from accelerate.utils.memory import find_executable_batch_size, should_reduce_batch_size

        try:
            return do(self.size)  # accelerate empties caches before it tries: a quarter of a second, for nothing mostly
        except Exception as error:
            if not should_reduce_batch_size(error):
                raise
        return find_executable_batch_size(do, starting_batch_size=self._halved(), reduce_batch_size_fn=self._halved)()

    def _halved(self) -> int:
        if self.size == 1:
            raise MemoryError("out of memory with one image at a time")
        self.size //= 2
        logger.info(f"out of memory: {self.size} images at a time from now on", extra={"every_process": True})
        return self.size
