"""What a run leaves in its folder, and how a later run knows that it can be used again."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from vitdfq import processes, tensors
from vitdfq.changes import Inputs, flat, what_changed
from vitdfq.errors import InputError
from vitdfq.files import fingerprint, read_json, sha256, write_text
from vitdfq.progress import say
from vitdfq.shelf import Clock, Shelf

RECORD, PARTS, LOCK = "stages/finished.json", "stages/parts", ".vitdfq.lock"
ENTRY = {"shaped_by", "sha256", "seconds"}
RUN = ("metrics.json", "README.md", "config.json", "model.safetensors", "images.safetensors", RECORD)
OURS = (*RUN, "compare.json", "compare.md", "compare.png")
FIRST = re.compile(r"\.recipe\.yaml\.\d+\.tmp")  # recipe.yaml, which is written before all else, if we were killed right then
LEFT_BEHIND = re.compile(r"\..+\.\d+\.tmp|\.tmp\w{6}")  # by a writer that was killed: `written_whole`, safetensors


class Stages:
    """Artefacts of one run folder; `finished.json` says what shaped each of them and how long it took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def once(self, name: str, inputs: Inputs, make: Callable[[Shelf], dict[str, Tensor]]) -> tuple[dict[str, Tensor], float]:
        """Return (tensors, seconds) of artefact `name`: read when `inputs` are as they were, else made and written.

        `make(shelf)` is called in every process, and finds on the shelf what it put there before it was interrupted.
        """
        seconds = self.seconds(name, inputs)
        shelf = self.shelf(name, inputs)
        if seconds is not None:
            shelf.clear()  # it may have been killed right after it was finished
            return processes.from_main(lambda: tensors.read_tensors(self.folder / name)), seconds
        made = processes.agreed(make(shelf))
        seconds = shelf.seconds()
        tensors.write_tensors(self.folder / name, made)
        self.finish(name, inputs, seconds)
        shelf.clear()
        return made, seconds

    def shelf(self, name: str, inputs: Inputs) -> Shelf:
        """Where parts of artefact `name` wait for the others. Parts of one that was shaped by other things are forgotten."""
        folder, shaped_by = self.folder / PARTS / fingerprint(name), fingerprint(inputs)
        if processes.is_main() and folder.is_dir():
            for other in folder.iterdir():
                if other.name != shaped_by:
                    Shelf(other).clear()
        return Shelf(folder / shaped_by, Clock(folder / shaped_by / "seconds.json"))

    def seconds(self, name: str, inputs: Inputs) -> float | None:
        """How long the artefact took, if it is there, whole, and shaped by the same inputs; else None, and why is said."""
        return processes.from_main(lambda: self._seconds(name, inputs))

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
        if not processes.is_main():
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
def claimed(folder: Path, name: str, recipe_yaml: str, fresh: bool) -> Iterator[None]:
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
            Shelf(folder / PARTS).clear()
        write_text(folder / "recipe.yaml", recipe_yaml)

    try:
        processes.from_main(claim)
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
