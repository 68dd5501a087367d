"""Bounds on work that are counted, not timed: a busy or slow machine counts the same."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MOST_CALLS = 2_000_000  # of Python functions, in all packages; the most expensive refusal of a file takes 400,000
MOST_MEGABYTES = 500


class TooMuchWork(BaseException):  # not an Exception, which the code under test may catch
    pass


@contextmanager
def bounded_effort(calls: int = MOST_CALLS, megabytes: int = MOST_MEGABYTES) -> Iterator[None]:
    """Bound the Python functions that this thread calls inside the block, and the growth of the process's peak memory.

    Both together bound the work in C too, since a call processes data that is in memory.

    Raises:
        TooMuchWork: inside the block, at the first call too many.
        AssertionError: after the block, if memory grew too much.
    """
    left = calls

    def count(frame, event, argument):
        nonlocal left
        left -= 1
        if left < 0:
            raise TooMuchWork(f"more than {calls:,} calls; now in {frame.f_code.co_filename}:{frame.f_lineno}")
        return None  # without a trace of every line, which would take longer than the line

    peak, previous = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(previous)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < megabytes * 1024  # also where the block raised
