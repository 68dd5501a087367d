"""A process that is killed at a time of the test's choice."""

from vitdfq.runtime.partial_results import PartialResults
from vitdfq.runtime.shared_run import SharedRun


class Killed(BaseException):
    pass


class DyingParts(PartialResults):
    """Partial results whose process is killed right after the `left`-th part is written, wherever in the call that is."""

    left = 0

    def part(self, name):
        inner = DyingParts(super().part(name).folder)
        inner.owner = getattr(self, "owner", self)
        return inner

    def put(self, name, part):
        super().put(name, part)
        owner = getattr(self, "owner", self)
        owner.left -= 1
        if owner.left == 0:
            raise Killed


def run_to_the_end(work, folder):
    """Call `work(run)` again and again, killed after each part; returns its result and the number of kills."""
    kills, parts = 0, DyingParts(folder)
    while True:
        parts.left = 1
        try:
            return work(SharedRun(parts)), kills
        except Killed:
            kills += 1
