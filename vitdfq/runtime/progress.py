"""Progress on stderr: a live bar with rate and time left on a terminal, plain lines now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as LiveDisplay

from vitdfq.runtime import distributed, interrupt
from vitdfq.runtime.run import Progress

console = Console(stderr=True, highlight=False, soft_wrap=True)
logger = logging.getLogger("vitdfq")
SECONDS_BETWEEN_LINES = 10.0
BAR_WIDTH, TIME_WIDTH = 16, 7  # columns; the time left is 0:00:00

Listener = Callable[[dict[str, float], int], None]
"""Called with a bar's numbers, {"distill/loss": 0.5}, and the step; a tracker (`trackers.py`), for example."""


class ConsoleHandler(logging.Handler):
    """Prints the library's messages on stderr, a line each: those of the main process, and those marked `every_process`."""

    def emit(self, record: logging.LogRecord) -> None:
        every_process = getattr(record, "every_process", False)
        if not (every_process or distributed.is_reporting()):
            return
        prefix = f"process {distributed.index()}: " if every_process and distributed.count() > 1 else ""
        console.print(prefix + record.getMessage(), markup=False)


def show_messages(level: int = logging.INFO) -> None:
    """Let the library's messages from `level` on appear on stderr; without this call only warnings do."""
    if not any(isinstance(handler, ConsoleHandler) for handler in logger.handlers):
        logger.addHandler(ConsoleHandler())
    logger.setLevel(level)
    logger.propagate = False


def is_quiet() -> bool:
    """Whether messages and bars are switched off, as by the command line's --quiet."""
    return not logger.isEnabledFor(logging.INFO)


@contextmanager
def quiet() -> Iterator[None]:
    """Show neither messages nor bars inside the block."""
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


class ProgressBar(Progress):
    """Counts steps; draws them through rich, or prints a line every few seconds where there is no terminal."""

    def __init__(self, title: str, total: int, listeners: Sequence[Listener] = ()) -> None:
        super().__init__(total)
        self.listeners = listeners
        self.title, self.skipped, self.start = title, 0, time.monotonic()
        self.last_line = self.start
        self.live: LiveDisplay | None = None
        if not is_quiet() and sys.stderr.isatty() and distributed.is_reporting():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(BAR_WIDTH),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
            )
            self.live = LiveDisplay(*columns, console=console, transient=False)
            self.task = self.live.add_task(title, total=total, numbers="")

    def __enter__(self) -> "ProgressBar":
        interrupt.kept.begin_steps(self.title, self)
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.live is not None:
            self.live.stop()

    def skip(self, steps: int) -> None:
        super().skip(steps)
        self.skipped += steps
        interrupt.kept.save_steps()
        if self.live is not None:
            self.live.update(self.task, completed=self.done)

    def advance(self, steps: int = 1, /, **numbers: float) -> None:
        before = self.done
        super().advance(steps)
        if numbers:
            named = {f"{self.title}/{name}": value for name, value in numbers.items()}
            for listen in self.listeners:
                listen(named, self.done)
        now = time.monotonic()
        rate = (self.done - self.skipped) / max(now - self.start, 1e-9)
        values = [f"{rate:.1f}/s", *(f"{name} {value:.4g}" for name, value in numbers.items())]
        if self.live is not None:
            self.live.update(self.task, completed=self.done, numbers=fitting(values, self.room()))
        elif now - self.last_line >= SECONDS_BETWEEN_LINES or before < self.total <= self.done:
            left = max(0, self.total - self.done) / rate  # work that begins again goes beyond the total
            logger.info("  ".join([f"{self.title}: {self.done}/{self.total}", values[0], f"{left:.0f} s left", *values[1:]]))
            self.last_line = now

    def room(self) -> int:
        """Columns of the terminal that title, bar, count and time left do not need."""
        count = 2 * max(len(str(self.total)), len(str(self.done))) + 1
        return console.width - (len(self.title) + BAR_WIDTH + count + TIME_WIDTH + 4)


def fitting(texts: Sequence[str], room: int) -> str:
    """The first of the texts, as many as fit into `room` columns."""
    shown = ""
    for text in texts:
        longer = f"{shown}  {text}" if shown else text
        if len(longer) > room:
            break
        shown = longer
    return shown
