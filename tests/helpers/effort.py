"""Bounds on work that are counted, not timed: a busy or slow machine counts the same."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MOST_LINES = 30_000_000  # of Python, in whatever package; the most laborious refusal of a recipe takes nine million
MOST_MEGABYTES = 500


class TooMuchWork(BaseException):  # not an Exception, which code on the way would catch
    pass


@contextmanager
def bounded_effort(lines: int = MOST_LINES, megabytes: int = MOST_MEGABYTES) -> Iterator[None]:
    """Within the block no more lines of Python run in this thread, and the process's peak of memory grows by no more than this.

    Work in C is bounded by the two together: what one line calls takes up and returns what is in memory.

    Raises:
        TooMuchWork: within the block as soon as it runs too many lines, so that an endless loop ends too.
        AssertionError: behind the block, when memory grew too much.
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
