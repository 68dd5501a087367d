"""The artifacts of a run folder, and how a later run knows whether it can use them again."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vitdfq.common.errors import InputError
from vitdfq.common.files import fingerprint, read_json, sha256, write_text
from vitdfq.common.safetensors_io import read_tensors, write_tensors
from vitdfq.runtime import distributed
from vitdfq.runtime.partial_results import Clock, PartialResults
from vitdfq.runtime.progress import Listener
from vitdfq.runtime.run import Tensors
from vitdfq.runtime.shared_run import SharedRun

logger = logging.getLogger(__name__)

Inputs = dict[str, Any]  # everything that shapes an artifact: recipe sections, hashes of weights and images
LONGEST = 200  # characters of an input that is recorded as it is; of a longer one its hash is recorded
SHORTENED = 60  # characters of a value in a message
MOST_CHANGES = 3  # in a message
HASH = "sha256:"
RECORD, PARTS, LOCK = "stages/finished.json", "stages/parts", ".vitdfq.lock"
ENTRY = {"shaped_by", "sha256", "seconds"}
RUN_FILES = ("metrics.json", "README.md", "config.json", "model.safetensors", "images.safetensors", RECORD)
OUR_FILES = (*RUN_FILES, "compare.json", "compare.md", "compare.png")
FIRST_FILE = re.compile(r"\.recipe\.yaml\.\d+\.tmp")  # recipe.yaml comes first; this is left if that was interrupted
LEFT_BEHIND = re.compile(r"\..+\.\d+\.tmp|\.tmp\w{6}")  # by a writer that was killed: `written_whole`, safetensors


class ArtifactStore:
    """Artifacts of one run folder; `finished.json` records what shaped each of them and how long it took.

    Args:
        folder: of the run.
        listeners: receive the numbers of progress bars, see `SharedRun`.
    """

    def __init__(self, folder: Path, listeners: Sequence[Listener] = ()) -> None:
        self.folder, self.listeners = folder, listeners

    def get_or_make(self, name: str, inputs: Inputs, make: Callable[[SharedRun], Tensors]) -> tuple[Tensors, float]:
        """Return (tensors, seconds) of artifact `name`: read when `inputs` are as they were, else made and written.

        `make(run)` is called in every process; the run has the parts that an interrupted start finished.
        """
        seconds = self.seconds(name, inputs)
        run = self.run(name, inputs)
        if seconds is not None:
            run.forget()  # an earlier process may have been killed right after it finished
            return distributed.from_main(lambda: read_tensors(self.folder / name)), seconds
        tensors = distributed.agreed(make(run))
        seconds = run.parts.seconds()
        if distributed.is_main():
            write_tensors(self.folder / name, tensors)
        self.finish(name, inputs, seconds)
        run.forget()
        return tensors, seconds

    def run(self, name: str, inputs: Inputs) -> SharedRun:
        """The run that makes artifact `name`. Finished parts of one that was shaped by other inputs are removed."""
        folder, shaped_by = self.folder / PARTS / fingerprint(name), fingerprint(inputs)
        if distributed.is_main() and folder.is_dir():
            for other in folder.iterdir():
                if other.name != shaped_by:
                    PartialResults(other).clear()
        parts = PartialResults(folder / shaped_by, Clock(folder / shaped_by / "seconds.json"))
        return SharedRun(parts, self.listeners)

    def seconds(self, name: str, inputs: Inputs) -> float | None:
        """How long the artifact took, if it is there, whole, and shaped by the same inputs; else None, with a message."""
        return distributed.from_main(lambda: self._seconds(name, inputs))

    def _seconds(self, name: str, inputs: Inputs) -> float | None:
        entry = self._record().get(name)
        if not isinstance(entry, dict) or not entry.keys() >= ENTRY or not (self.folder / name).is_file():
            return None
        if entry["shaped_by"] != fingerprint(inputs):
            logger.info(f"{name}: made again, {what_changed(entry.get('inputs'), flat(inputs))}")
            return None
        beside = entry["beside"] if isinstance(entry.get("beside"), dict) else {}
        for file, digest in (beside | {name: entry["sha256"]}).items():
            path = self.folder / file
            if not path.is_file() or sha256(path) != digest:
                logger.info(f"{path}: changed since it was written; made again")
                return None
        logger.info(f"{name}: used again")
        return entry["seconds"]

    def finish(self, name: str, inputs: Inputs, seconds: float, beside: Sequence[str] = ()) -> None:
        """Record that the artifact is complete; it can be used only together with the files `beside` it, as they are now."""
        if not distributed.is_main():
            return
        hashes = {"sha256": sha256(self.folder / name), "beside": {file: sha256(self.folder / file) for file in beside}}
        entry = {"shaped_by": fingerprint(inputs), "inputs": flat(inputs), **hashes, "seconds": seconds}
        record = self._record() | {name: entry}
        write_text(self.folder / RECORD, json.dumps(record, indent=2) + "\n")

    def _record(self) -> dict[str, Any]:
        path = self.folder / RECORD
        try:
            return read_json(path) if path.is_file() else {}
        except InputError as error:
            logger.info(f"{error}; every stage is made again")
            return {}


@contextmanager
def lock_run_folder(folder: Path, name: str, recipe_yaml: str, fresh: bool) -> Iterator[None]:
    """Make `folder` the place of this run alone while the block lasts; write recipe.yaml into it.

    Raises:
        InputError: it is not a folder, holds another run or somebody's files, or a run is writing there now.
    """
    lock = FileLock(folder / LOCK, timeout=0)

    def claim() -> None:
        _check_owner(folder, name, fresh)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(f"{folder}: another run is writing there; wait for it, or choose another --out") from error
        for path in folder.rglob(".*tmp*"):
            if LEFT_BEHIND.fullmatch(path.name) and path.is_file():
                path.unlink()
        if fresh:
            for file in OUR_FILES:  # not recipe.yaml: it marks the folder as a run's, should this process be killed now
                (folder / file).unlink(missing_ok=True)
            PartialResults(folder / PARTS).clear()
        write_text(folder / "recipe.yaml", recipe_yaml)

    try:
        distributed.from_main(claim)
        yield
    finally:
        lock.release()  # the system does it where a process is killed


def _check_owner(folder: Path, name: str, fresh: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: not a folder")
    marker = folder / "recipe.yaml"
    if marker.is_file():
        owner = marker.read_text(encoding="utf-8", errors="replace").partition("\n")[0].removeprefix("name: ").strip()
        if owner != name and not fresh:
            raise InputError(f"{folder}: holds another run ({owner}); choose another --out, or --fresh to replace it")
    elif folder.is_dir() and any(path.name != LOCK and not FIRST_FILE.fullmatch(path.name) for path in folder.iterdir()):
        raise InputError(f"{folder}: not empty and not a vitdfq run; choose another --out")


def hashed(digest: str) -> str:
    """Mark a hash among inputs: a message names the input that changed, not the digits."""
    return HASH + digest


def flat(inputs: Inputs) -> dict[str, Any]:
    """The inputs as JSON gives them back, by dotted key: {"synthesize.steps": 100}."""
    return dict(_leaves(json.loads(json.dumps(inputs, default=str)), ""))


def what_changed(before: object, now: dict[str, Any]) -> str:
    """The difference of two flat inputs, in words; `before` may be anything that was read from a file."""
    if not isinstance(before, dict):
        return "what shapes it has changed"
    keys = [key for key in now if key not in before or before[key] != now[key]] + [key for key in before if key not in now]
    changes = [_change(key, before, now) for key in keys[:MOST_CHANGES]]
    changes += [f"{len(keys) - MOST_CHANGES} more"] if len(keys) > MOST_CHANGES else []
    return "; ".join(changes) or "what shapes it has changed"


def _change(key: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    if any(str(values.get(key)).startswith(HASH) for values in (before, now)):
        return f"{key} changed"
    was, is_now = ((_short(values[key]) if key in values else "not set") for values in (before, now))
    return f"{key} was {was}, is {is_now}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHORTENED else text[:SHORTENED] + " ..."


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
        return
    text = json.dumps(value)
    yield key, value if len(text) <= LONGEST else hashed(hashlib.sha256(text.encode()).hexdigest())
