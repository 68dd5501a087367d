"""A process that is killed at a time of the test's choice."""

from vitdfq.runtime.partial_results import PartialResults


class Killed(BaseException):
    pass


class Dying(PartialResults):
    """A shelf whose process is killed right after its `left`-th part, wherever in the call that is."""

    left = 0

    def part(self, name):
        inner = Dying(super().part(name).folder)
        inner.owner = getattr(self, "owner", self)
        return inner

    def put(self, name, part):
        super().put(name, part)
        owner = getattr(self, "owner", self)
        owner.left -= 1
        if owner.left == 0:
            raise Killed


def run_to_the_end(run, folder):
    """Call `run(shelf)` again and again, killed after each part; returns what it ends with, and how often it was killed."""
    kills, shelf = 0, Dying(folder)
    while True:
        shelf.left = 1
        try:
            return run(shelf), kills
        except Killed:
            kills += 1
