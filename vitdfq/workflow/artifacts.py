"""The artifacts of a run folder: which of them a later run can use again, and why others are computed anew."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from vitdfq.common.errors import InputError
from vitdfq.common.files import fingerprint, read_json, sha256, write_text
from vitdfq.common.safetensors_io import read_tensors, write_tensors
from vitdfq.cost.timing import peak_memory
from vitdfq.runtime import distributed
from vitdfq.runtime.loss_recorder import LossRecorder, losses_file
from vitdfq.runtime.partial_results import Clock, PartialResults
from vitdfq.runtime.progress import Listener
from vitdfq.runtime.run import Tensors
from vitdfq.runtime.shared_run import SharedRun

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")
Inputs = dict[str, Any]  # everything that an artifact depends on: recipe sections, hashes of weights and images
MAX_RECORDED = 200  # characters of an input that is recorded as it is; of a longer one its hash is recorded
MAX_SHOWN = 60  # characters of a value in a message
MAX_CHANGES = 3  # in a message
UNKNOWN_CHANGE = "its inputs have changed"
HASH = "sha256:"
RECORD, PARTS, LOCK = "stages/finished.json", "stages/parts", ".vitdfq.lock"
ENTRY = {"shaped_by", "sha256", "seconds"}
RUN_FILES = ("metrics.json", "README.md", "config.json", "model.safetensors", "images.safetensors", RECORD)
RESULT_FILES = (*RUN_FILES, "compare.json", "compare.md", "compare.png")
FIRST_TEMPORARY_FILE = re.compile(r"\.recipe\.yaml\.\d+\.tmp")  # recipe.yaml is written first; a killed write leaves this file
TEMPORARY_FILE = re.compile(r"\..+\.\d+\.tmp|\.tmp\w{6}")  # of a writer that was killed: `written_whole`, safetensors


class ArtifactStore:
    """Artifacts of one run folder; `finished.json` records the inputs of each, its checksum, time and memory.

    Args:
        folder: of the run.
        listeners: receive the numbers of progress bars, see `SharedRun`.
        device: that computes; the peak of its memory is recorded with each artifact.
    """

    def __init__(self, folder: Path, listeners: Sequence[Listener] = (), device: torch.device = CPU) -> None:
        self.folder, self.listeners, self.device = folder, listeners, device

    def get_or_make(
        self, name: str, inputs: Inputs, make: Callable[[SharedRun], Tensors], parts_inputs: Inputs | None = None
    ) -> tuple[Tensors, float]:
        """Return (tensors, seconds) of artifact `name`: read if its `inputs` are unchanged, else made and written.

        `make(run)` is called in every process; the run has the parts that an interrupted start finished.

        Args:
            parts_inputs: those of the inputs that shape its parts, if not all do.
        """
        seconds = self.finished_seconds(name, inputs)
        run = self.run_of(name, inputs if parts_inputs is None else parts_inputs)
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

    def run_of(self, name: str, inputs: Inputs) -> SharedRun:
        """The run that makes artifact `name`. Finished parts and losses that belong to other inputs are removed."""
        folder, key = self.folder / PARTS / fingerprint(name), fingerprint(inputs)
        if distributed.is_main() and folder.is_dir():
            for other in folder.iterdir():
                if other.name != key:
                    PartialResults(other).clear()
        parts = PartialResults(folder / key, Clock(folder / key / "seconds.json"))
        recorder = LossRecorder(self.folder / losses_file(name), key)
        recorder.remove_others()
        return SharedRun(parts, self.listeners, recorder)

    def finished_seconds(self, name: str, inputs: Inputs) -> float | None:
        """How long the artifact took, if it exists, undamaged, with the same inputs; else None, with a message."""
        return distributed.from_main(lambda: self._finished_seconds(name, inputs))

    def _finished_seconds(self, name: str, inputs: Inputs) -> float | None:
        entry = self._read_record().get(name)
        if not isinstance(entry, dict) or not entry.keys() >= ENTRY or not (self.folder / name).is_file():
            return None
        if entry["shaped_by"] != fingerprint(inputs):
            logger.info(f"{name}: made again, {describe_changes(entry.get('inputs'), flatten(inputs))}")
            return None
        beside = entry["beside"] if isinstance(entry.get("beside"), dict) else {}
        for file, digest in (beside | {name: entry["sha256"]}).items():
            path = self.folder / file
            if not path.is_file() or sha256(path) != digest:
                logger.info(f"{path}: changed since it was written; made again")
                return None
        logger.info(f"{name}: used again")
        return entry["seconds"]

    def read_despite(self, name: str, inputs: Inputs, key: str) -> tuple[Tensors, float] | None:
        """Return (tensors, seconds) of an undamaged artifact whose inputs differ from these in the one dotted `key`, or None."""

        def read() -> tuple[Tensors, float] | None:
            entry, path, now = self._read_record().get(name), self.folder / name, flatten(inputs)
            if not isinstance(entry, dict) or not entry.keys() >= ENTRY or not path.is_file():
                return None
            before = entry.get("inputs")
            if not isinstance(before, dict) or {**before, key: None} != {**now, key: None}:
                return None
            return (read_tensors(path), entry["seconds"]) if sha256(path) == entry["sha256"] else None

        return distributed.from_main(read)

    def finish(self, name: str, inputs: Inputs, seconds: float, beside: Sequence[str] = ()) -> None:
        """Record that the artifact is complete. It is used again only while it and the files `beside` it are unchanged."""
        if not distributed.is_main():
            return
        hashes = {"sha256": sha256(self.folder / name), "beside": {file: sha256(self.folder / file) for file in beside}}
        cost = {"seconds": seconds, "peak_bytes": peak_memory(self.device)}
        entry = {"shaped_by": fingerprint(inputs), "inputs": flatten(inputs), **hashes, **cost}
        record = self._read_record() | {name: entry}
        write_text(self.folder / RECORD, json.dumps(record, indent=2) + "\n")

    def _read_record(self) -> dict[str, Any]:
        path = self.folder / RECORD
        try:
            return read_json(path) if path.is_file() else {}
        except InputError as error:
            logger.info(f"{error}; every stage is made again")
            return {}


@contextmanager
def lock_run_folder(folder: Path, name: str, recipe_yaml: str, fresh: bool) -> Iterator[None]:
    """Reserve `folder` for this run inside the block; write recipe.yaml into it.

    Raises:
        InputError: it is not a folder, holds another run or other files, or a run is writing there now.
    """
    lock = FileLock(folder / LOCK, timeout=0)

    def acquire() -> None:
        _check_owner(folder, name, fresh)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(f"{folder}: another run is writing there; wait for it, or choose another --out") from error
        for path in folder.rglob(".*tmp*"):
            if TEMPORARY_FILE.fullmatch(path.name) and path.is_file():
                path.unlink()
        if fresh:
            for file in RESULT_FILES:  # not recipe.yaml: it marks the folder as a run's, should this process be killed now
                (folder / file).unlink(missing_ok=True)
            PartialResults(folder / PARTS).clear()
        write_text(folder / "recipe.yaml", recipe_yaml)

    try:
        distributed.from_main(acquire)
        yield
    finally:
        lock.release()  # the operating system releases it if the process is killed


def _check_owner(folder: Path, name: str, fresh: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: not a folder")
    marker = folder / "recipe.yaml"
    if marker.is_file():
        owner = marker.read_text(encoding="utf-8", errors="replace").partition("\n")[0].removeprefix("name: ").strip()
        if owner != name and not fresh:
            raise InputError(f"{folder}: holds another run ({owner}); choose another --out, or --fresh to replace it")
    elif folder.is_dir() and any(not _is_from_killed_start(path.name) for path in folder.iterdir()):
        raise InputError(f"{folder}: not empty and not a vitdfq run; choose another --out")


def _is_from_killed_start(name: str) -> bool:
    """Whether a start that was killed before it wrote recipe.yaml may have left this file."""
    return name == LOCK or FIRST_TEMPORARY_FILE.fullmatch(name) is not None


def mark_hash(digest: str) -> str:
    """Mark a hash among inputs, so that a message names the input that changed and leaves out the digits."""
    return HASH + digest


def flatten(inputs: Inputs) -> dict[str, Any]:
    """The inputs after a round trip through JSON, by dotted key: {"synthesize.steps": 100}."""
    return dict(_leaves(json.loads(json.dumps(inputs, default=str)), ""))


def describe_changes(before: object, now: dict[str, Any]) -> str:
    """The difference between two results of `flatten`; `before` may be anything that was read from a file."""
    if not isinstance(before, dict):
        return UNKNOWN_CHANGE
    keys = [key for key in now if key not in before or before[key] != now[key]] + [key for key in before if key not in now]
    changes = [_describe_change(key, before, now) for key in keys[:MAX_CHANGES]]
    changes += [f"{len(keys) - MAX_CHANGES} more"] if len(keys) > MAX_CHANGES else []
    return "; ".join(changes) or UNKNOWN_CHANGE


def _describe_change(key: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    if any(str(values.get(key)).startswith(HASH) for values in (before, now)):
        return f"{key} changed"
    was, is_now = ((_shorten(values[key]) if key in values else "not set") for values in (before, now))
    return f"{key} was {was}, is {is_now}"


def _shorten(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + " ..."


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
        return
    text = json.dumps(value)
    yield key, value if len(text) <= MAX_RECORDED else mark_hash(hashlib.sha256(text.encode()).hexdigest())


def without_cost_options(section: dict[str, Any], *others: str) -> dict[str, Any]:
    """A section without the keys that change only time and memory, so that a change of them does not make artifacts anew."""
    return {key: value for key, value in section.items() if key not in ("batch_size", "num_workers", "streaming", *others)}
