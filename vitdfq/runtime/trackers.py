"""Losses and rates of long work, written where the user looks at those of other runs: tensorboard and others (accelerate)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitdfq.common.errors import RecipeError
from vitdfq.common.lookup import lookup

if TYPE_CHECKING:
    from accelerate import Accelerator

_current: "Accelerator | None" = None


def check_tracker(name: str) -> None:
    """Raise ValueError, with the choices, unless accelerate knows a tracker of this name."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    lookup(name, LOGGER_TYPE_TO_CLASS, "tracker")


@contextmanager
def tracked(names: Sequence[Any], run: str, folder: Path, config: dict[str, str]) -> Iterator[None]:
    """Open trackers for as long as the block lasts; what `log` is told goes to them, from the main process.

    Args:
        names: of trackers, or `accelerate.tracking.GeneralTracker` objects.
        run: what the run is called there.
        folder: for those that write files; they get a folder `trackers` in it.
        config: what else to note down about the run.

    Raises:
        RecipeError: a tracker's package is not installed.
    """
    global _current
    if not names:
        yield
        return
    from accelerate import Accelerator
    from accelerate.tracking import get_available_trackers

    there = [str(name) for name in get_available_trackers()]
    for name in names:
        if isinstance(name, str) and name not in there:
            raise RecipeError(f"trackers: {name} is not installed; found: {', '.join(there) or 'none'}")
    _current = Accelerator(log_with=list(names), project_dir=folder / "trackers")
    try:
        _current.init_trackers(run, config=config)
        yield
        for tracker in _current.trackers:
            tracker.finish()
    finally:
        _current = None


def log(values: dict[str, float], step: int) -> None:
    """Note numbers down, if a run is tracked."""
    if _current is not None and values:
        _current.log(values, step=step)
