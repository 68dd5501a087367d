"""Bounds on work that are counted, not timed: a busy or slow machine counts the same."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MOST_CALLS = 2_000_000  # of Python functions, in whatever package; the most laborious refusal of a file takes 400,000
MOST_MEGABYTES = 500


class TooMuchWork(BaseException):  # not an Exception, which code on the way would catch
    pass


@contextmanager
def bounded_effort(calls: int = MOST_CALLS, megabytes: int = MOST_MEGABYTES) -> Iterator[None]:
    """Within the block this thread calls no more Python functions, and the process's peak of memory grows by no more than this.

    Raises:
        TooMuchWork: within the block, at the first call too many.
        AssertionError: behind the block, when memory grew too much.
    """
    left = calls

    def count(frame, event, argument):
        nonlocal left
        left -= 1
        if left < 0:
            raise TooMuchWork(f"more than {calls:,} calls; now in {frame.f_code.co_filename}:{frame.f_lineno}")
        return None  # do not trace lines: they take longer to count than to run

    peak, previous = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(previous)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < megabytes * 1024  # also where the block raised
