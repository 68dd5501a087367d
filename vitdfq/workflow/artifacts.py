"""What a run leaves in its folder, and how a later run knows that it can be used again."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from vitdfq.common import safetensors_io
from vitdfq.common.errors import InputError
from vitdfq.common.files import fingerprint, read_json, sha256, write_text
from vitdfq.runtime import distributed
from vitdfq.runtime.partial_results import Clock, PartialResults
from vitdfq.runtime.progress import say

Inputs = dict[str, Any]  # what shapes an artefact: recipe sections, hashes of weights and images
LONGEST = 200  # characters of a value that is kept as it is; of a longer one its hash is kept
SHOWN = 60  # characters of a value in a message
MOST = 3  # changes in a message
HASH = "sha256:"
RECORD, PARTS, LOCK = "stages/finished.json", "stages/parts", ".vitdfq.lock"
ENTRY = {"shaped_by", "sha256", "seconds"}
RUN = ("metrics.json", "README.md", "config.json", "model.safetensors", "images.safetensors", RECORD)
OURS = (*RUN, "compare.json", "compare.md", "compare.png")
FIRST = re.compile(r"\.recipe\.yaml\.\d+\.tmp")  # recipe.yaml, which is written before all else, if we were killed right then
LEFT_BEHIND = re.compile(r"\..+\.\d+\.tmp|\.tmp\w{6}")  # by a writer that was killed: `written_whole`, safetensors


class ArtifactStore:
    """Artefacts of one run folder; `finished.json` says what shaped each of them and how long it took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get_or_make(
        self, name: str, inputs: Inputs, make: Callable[[PartialResults], dict[str, Tensor]]
    ) -> tuple[dict[str, Tensor], float]:
        """Return (tensors, seconds) of artefact `name`: read when `inputs` are as they were, else made and written.

        `make(shelf)` is called in every process, and finds on the shelf what it put there before it was interrupted.
        """
        seconds = self.seconds(name, inputs)
        shelf = self.shelf(name, inputs)
        if seconds is not None:
            shelf.clear()  # it may have been killed right after it was finished
            return distributed.from_main(lambda: safetensors_io.read_tensors(self.folder / name)), seconds
        made = distributed.agreed(make(shelf))
        seconds = shelf.seconds()
        safetensors_io.write_tensors(self.folder / name, made)
        self.finish(name, inputs, seconds)
        shelf.clear()
        return made, seconds

    def shelf(self, name: str, inputs: Inputs) -> PartialResults:
        """Where parts of artefact `name` wait for the others. Parts of one that was shaped by other things are forgotten."""
        folder, shaped_by = self.folder / PARTS / fingerprint(name), fingerprint(inputs)
        if distributed.is_main() and folder.is_dir():
            for other in folder.iterdir():
                if other.name != shaped_by:
                    PartialResults(other).clear()
        return PartialResults(folder / shaped_by, Clock(folder / shaped_by / "seconds.json"))

    def seconds(self, name: str, inputs: Inputs) -> float | None:
        """How long the artefact took, if it is there, whole, and shaped by the same inputs; else None, and why is said."""
        return distributed.from_main(lambda: self._seconds(name, inputs))

    def _seconds(self, name: str, inputs: Inputs) -> float | None:
        entry = self._record().get(name)
        if not isinstance(entry, dict) or not entry.keys() >= ENTRY or not (self.folder / name).is_file():
            return None
        if entry["shaped_by"] != fingerprint(inputs):
            say(f"{name}: made again, {what_changed(entry.get('inputs'), flat(inputs))}")
            return None
        beside = entry["beside"] if isinstance(entry.get("beside"), dict) else {}
        for file, digest in (beside | {name: entry["sha256"]}).items():
            path = self.folder / file
            if not path.is_file() or sha256(path) != digest:
                say(f"{path}: changed since it was written; made again")
                return None
        say(f"{name}: used again")
        return entry["seconds"]

    def finish(self, name: str, inputs: Inputs, seconds: float, beside: Sequence[str] = ()) -> None:
        """Record that the artefact is complete; without the files `beside` it, as they are now, it is of no use."""
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
            say(f"{error}; every stage is made again")
            return {}


@contextmanager
def lock_run_folder(folder: Path, name: str, recipe_yaml: str, fresh: bool) -> Iterator[None]:
    """Make `folder` the place of this run, and of no other while the block lasts; write recipe.yaml into it.

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
            for ours in OURS:  # not recipe.yaml: without it the folder would be nobody's if we were killed now
                (folder / ours).unlink(missing_ok=True)
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
    elif folder.is_dir() and any(path.name != LOCK and not FIRST.fullmatch(path.name) for path in folder.iterdir()):
        raise InputError(f"{folder}: not empty and not a vitdfq run; choose another --out")


def hashed(digest: str) -> str:
    """Mark a hash among inputs: that it changed is said, its digits are not."""
    return HASH + digest


def flat(inputs: Inputs) -> dict[str, Any]:
    """The inputs as JSON gives them back, by dotted key: {"synthesize.steps": 100}."""
    return dict(_leaves(json.loads(json.dumps(inputs, default=str)), ""))


def what_changed(before: object, now: dict[str, Any]) -> str:
    """What differs between two flat inputs, in words; `before` may be anything that was read from a file."""
    if not isinstance(before, dict):
        return "what shapes it has changed"
    keys = [key for key in now if key not in before or before[key] != now[key]] + [key for key in before if key not in now]
    said = [_change(key, before, now) for key in keys[:MOST]] + ([f"{len(keys) - MOST} more"] if len(keys) > MOST else [])
    return "; ".join(said) or "what shapes it has changed"


def _change(key: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    if any(str(held.get(key)).startswith(HASH) for held in (before, now)):
        return f"{key} changed"
    was, is_now = ((_short(held[key]) if key in held else "not set") for held in (before, now))
    return f"{key} was {was}, is {is_now}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + " ..."


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
        return
    text = json.dumps(value)
    yield key, value if len(text) <= LONGEST else hashed(hashlib.sha256(text.encode()).hexdigest())
