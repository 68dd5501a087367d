"""Work that is interrupted after every part that it saves, as if its process were killed."""

from vitdfq.runtime.partial_results import PartialResults
from vitdfq.runtime.shared_run import SharedRun


class Killed(BaseException):
    """Stands for a killed process."""


class DyingParts(PartialResults):
    """Partial results that raise `Killed` right after `remaining` more parts are saved, in this name space or an inner one."""

    remaining = 0

    def part(self, name):
        inner = DyingParts(super().part(name).folder)
        inner.outer = getattr(self, "outer", self)
        return inner

    def put(self, name, part):
        super().put(name, part)
        outer = getattr(self, "outer", self)
        outer.remaining -= 1
        if outer.remaining == 0:
            raise Killed


def run_to_the_end(work, folder):
    """Call `work(run)` until it returns, killed after each saved part; its result and the number of kills."""
    kills, parts = 0, DyingParts(folder)
    while True:
        parts.remaining = 1
        try:
            return work(SharedRun(parts)), kills
        except Killed:
            kills += 1
