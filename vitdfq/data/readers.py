"""Readers that are left in the middle are closed while Python still runs."""

import atexit
from collections.abc import Generator, Iterator
from contextlib import contextmanager

_open: set[Generator] = set()


@contextmanager
def closed_at_exit(reader: Generator) -> Iterator[Generator]:
    """Close `reader` when the block ends, or the process, whichever comes first.

    pyarrow's threads can abort a process that ends while they read a parquet stream: its exit code would be lost. A caller
    who holds half-read rows to the end never leaves the block, so that `with` alone does not do.
    """
    _open.add(reader)
    try:
        yield reader
    finally:
        _open.discard(reader)
        reader.close()


@atexit.register
def _close_all() -> None:
    while _open:
        _open.pop().close()
