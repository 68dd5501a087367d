"""Losses and rates of long work in the trackers where a user looks at other runs: tensorboard and others (accelerate)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitdfq.common.errors import RecipeError
from vitdfq.common.lookup import lookup
from vitdfq.runtime import distributed
from vitdfq.runtime.progress import Listener


def check_tracker(name: str) -> None:
    """Raise ValueError, with the choices, unless accelerate knows a tracker of this name."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    lookup(name, LOGGER_TYPE_TO_CLASS, "tracker")


@contextmanager
def tracked(names: Sequence[Any], run_name: str, folder: Path, config: dict[str, str]) -> Iterator[tuple[Listener, ...]]:
    """Open trackers inside the block, in the main process; yield what writes the numbers of a progress bar to them.

    Args:
        names: of trackers, or `accelerate.tracking.GeneralTracker` objects.
        run_name: the name of the run there.
        folder: trackers that write files get the folder `trackers` in it.
        config: further text about the run.

    Raises:
        RecipeError: a tracker's package is not installed.
    """
    if not names or not distributed.is_main():
        yield ()
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    installed = [str(name) for name in get_available_trackers()]
    trackers = []
    for name in names:
        if not isinstance(name, str):
            trackers.append(name)
            continue
        if name not in installed:
            raise RecipeError(f"trackers: {name} is not installed; installed: {', '.join(installed) or 'none'}")
        kind = LOGGER_TYPE_TO_CLASS[name]
        trackers.append(kind(run_name, folder / "trackers") if kind.requires_logging_directory else kind(run_name))
    for tracker in trackers:
        if hasattr(tracker, "start"):  # accelerate from 1.9 opens a tracker in a step of its own
            tracker.start()
        tracker.store_init_configuration(config)
    yield tuple(tracker.log for tracker in trackers)
    for tracker in trackers:
        tracker.finish()
