"""Ctrl-C (SIGINT) and SIGTERM end the command with one last line on stderr: what is kept, and the command that goes on.

Everything that is kept is written whole, so the process can be left at any moment. The first signal unwinds the program, which
closes its files and bars; a second one, or `GRACE` seconds, end it where it stands: a download may wait for its threads, and a
callback of a library may swallow the exception. Only the standard library is imported here, so that imports can be interrupted.
"""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitdfq.runtime.run import Progress

EXIT_CODE = 130
GRACE = 5.0  # seconds from the first signal to the end
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Raised by a signal. Not a KeyboardInterrupt, which typer and others answer themselves."""


class Kept:
    """What an interrupted command has finished; those that keep it write it here.

    Attributes:
        folder: of the run; None: nothing is kept.
        stage, stages: the number of the current stage, from 1, and how many there are.
        bar: the progress of the current work.
        steps: how many of its steps are in saved parts.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.stage, self.stages, self.steps = 0, 0, 0
        self.title = ""
        self.bar: Progress | None = None

    def begin_stage(self, stage: int, stages: int) -> None:
        """Everything before this stage is finished."""
        self.stage, self.stages, self.bar = stage, stages, None

    def begin_steps(self, title: str, bar: "Progress") -> None:
        """The current stage counts its steps in `bar` from here on."""
        self.title, self.bar, self.steps = title, bar, bar.done

    def save_steps(self) -> None:
        """All steps so far are in saved parts."""
        if self.bar is not None:
            self.steps = self.bar.done

    def describe(self) -> str:
        """For example "3 of 6 stages and 120 of 1,000 steps of synthesize are kept in runs/x"."""
        if self.folder is None or not self.stage:
            return "nothing new was written here"
        finished = f"{self.stage - 1} of {self.stages} stages"
        if self.bar is not None and self.bar.total:
            finished += f" and {min(self.steps, self.bar.total):,} of {self.bar.total:,} steps of {self.title}"
        return f"{finished} are kept in {shlex.quote(str(self.folder))}"


kept = Kept()
_signals = 0  # how many arrived
_last_line = threading.Lock()  # taken once, by whoever prints the last line
_process = 0  # id of the process that installed the handlers; forked ones inherit them


@contextmanager
def handled() -> Iterator[None]:
    """Inside the block SIGINT and SIGTERM end the process as described above. A signal that is ignored stays so (nohup, &)."""
    global _process
    _process = os.getpid()
    before = {}
    if threading.current_thread() is threading.main_thread():  # Python allows handlers there alone
        before = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, _interrupt)
    try:
        yield
    except Interrupted:
        leave()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _signals
    if os.getpid() != _process:  # a worker that was forked: its end is none of the command's
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    _signals += 1
    if _signals > 1:
        leave()
    timer = threading.Timer(GRACE, leave)
    timer.daemon = True
    timer.start()
    raise Interrupted


def leave() -> None:
    """Print the last line and end this process at once: threads of a download would go on, and others print after it."""
    if _last_line.acquire(blocking=False):
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        if int(os.environ.get("RANK", 0)) == 0:
            show_cursor = "\r\x1b[?25h\x1b[K" if os.isatty(2) else ""  # a live bar hides it
            with suppress(OSError):  # nobody reads stderr any more
                os.write(2, f"{show_cursor}{last_line()}\n".encode())
        os._exit(EXIT_CODE)


def last_line() -> str:
    """The line that an interrupted command ends with."""
    return f"interrupted: {kept.describe()}; to go on: {command()}"


def command() -> str:
    """The command that goes on, to be copied: as it was typed, without --fresh, which would remove what is kept."""
    return shlex.join(argument for argument in _typed() if argument != "--fresh")


def _typed() -> list[str]:
    """The command line: of the launcher, if one started this process and can be read; else of this process."""
    if "RANK" in os.environ:
        with suppress(OSError):  # not Linux
            launcher = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            if "vitdfq" in launcher:
                return _without_interpreter(launcher)
    module = sys.orig_argv[: sys.orig_argv.index("-m") + 2] if "-m" in sys.orig_argv else []
    return [*(module if module[-1:] == ["vitdfq"] else ["vitdfq"]), *sys.argv[1:]]


def _without_interpreter(typed: list[str]) -> list[str]:
    """["python", "/bin/torchrun", ...] is typed as "torchrun ..."."""
    is_script = len(typed) > 1 and Path(typed[0]).name.startswith("python") and not typed[1].startswith("-")
    return [Path(typed[1]).name, *typed[2:]] if is_script else typed
