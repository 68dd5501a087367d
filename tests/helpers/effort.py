"""Bounds on work that is counted, not timed, so that they do not depend on the speed or load of the machine."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MOST_LINES = 30_000_000  # of Python, in all packages; the most expensive refusal of a recipe takes nine million
MOST_MEGABYTES = 500


class TooMuchWork(BaseException):
    """The bound is exceeded. No Exception, since the code under test may catch those."""


@contextmanager
def bounded_effort(lines: int = MOST_LINES, megabytes: int = MOST_MEGABYTES) -> Iterator[None]:
    """Bound the lines of Python that this thread runs inside the block, and the growth of the process's peak memory.

    Both together bound the work in C too, since a call processes data that is in memory.

    Raises:
        TooMuchWork: inside the block, at the first line too many, so that an endless loop ends too.
        AssertionError: after the block, if memory grew too much.
    """
    left = lines

    def count(frame, event, argument):
        nonlocal left
        left -= 1
        if left < 0:
            raise TooMuchWork(f"more than {lines:,} lines of Python; now in {frame.f_code.co_filename}:{frame.f_lineno}")
        return count

    peak, previous = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(previous)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < megabytes * 1024  # also where the block raised
