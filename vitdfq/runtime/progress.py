"""Progress on stderr: a live bar with rate and time left on a terminal, plain lines now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vitdfq.runtime import distributed, trackers

console = Console(stderr=True, highlight=False, soft_wrap=True)
SECONDS_BETWEEN_LINES = 10.0
quiet = False  # set by the command line's --quiet


def say(message: str, own: bool = False) -> None:
    """Print one line about what happens. Of several processes the main one speaks, and each of its `own` share of the work."""
    if quiet or not (own or distributed.speaks()):
        return
    who = f"process {distributed.index()}: " if own and distributed.count() > 1 else ""
    console.print(who + message, markup=False)


@contextmanager
def bar(title: str, total: int) -> Iterator["Bar"]:
    """Show the progress of `total` steps; call the yielded bar's `advance(amount, **numbers)` after each."""
    if quiet or not sys.stderr.isatty() or not distributed.speaks():
        yield Bar(title, total, live=None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    with Progress(*columns, console=console, transient=False) as live:
        yield Bar(title, total, live)


class Bar:
    """Counts steps; draws them through rich, or prints a line every few seconds where there is no terminal."""

    def __init__(self, title: str, total: int, live: Progress | None) -> None:
        self.title, self.total, self.live = title, total, live
        self.done, self.skipped, self.start = 0, 0, time.monotonic()
        self.last_line = self.start
        self.task = live.add_task(title, total=total, rate="", numbers="") if live else None

    def skip(self, amount: int) -> None:
        """Count steps that an earlier start did: they say nothing of the rate."""
        self.done, self.skipped = self.done + amount, self.skipped + amount
        if self.live is not None and self.task is not None:
            self.live.update(self.task, completed=self.done)

    def advance(self, amount: int = 1, **numbers: float) -> None:
        before, self.done = self.done, self.done + amount
        trackers.log({f"{self.title}/{name}": value for name, value in numbers.items()}, self.done)
        now = time.monotonic()
        rate = (self.done - self.skipped) / max(now - self.start, 1e-9)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        if self.live is not None and self.task is not None:
            self.live.update(self.task, completed=self.done, rate=f"{rate:.1f}/s", numbers=shown)
        elif now - self.last_line >= SECONDS_BETWEEN_LINES or before < self.total <= self.done:
            left = max(0, self.total - self.done) / rate  # what is begun again goes beyond the total
            say(f"{self.title}: {self.done}/{self.total}  {rate:.1f}/s  {left:.0f} s left  {shown}".rstrip())
            self.last_line = now
