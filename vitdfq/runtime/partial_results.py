"""Finished parts of an unfinished stage, on disk, so that the same command goes on where it was killed."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from vitdfq.common.errors import InputError
from vitdfq.common.files import read_json, write_text
from vitdfq.common.safetensors_io import digest, read_metadata, read_tensors, write_tensors
from vitdfq.runtime import distributed, interrupt
from vitdfq.runtime.run import Tensors

logger = logging.getLogger(__name__)


class Clock:
    """Seconds of a stage so far; those of an interrupted start count up to its last part."""

    def __init__(self, path: Path) -> None:
        self.path, self.start = path, time.monotonic()
        try:
            before = read_json(path).get("seconds") if path.is_file() else 0.0
        except InputError:  # damaged
            before = 0.0
        self.before = before if isinstance(before, int | float) else 0.0

    def seconds(self) -> float:
        return round(self.before + time.monotonic() - self.start, 2)

    def begin_with(self, seconds: float) -> None:
        """Count seconds of work that is used again, unless an interrupted start has counted them."""
        if not self.before:
            self.before = seconds
            self.note()

    def note(self) -> None:
        write_text(self.path, json.dumps({"seconds": self.seconds()}))


class PartialResults:
    """Parts by name. Without a folder nothing is kept: calls from Python need no folder.

    The parts belong to one computation: their folder is named by all that shapes its result (`ArtifactStore.run`). Only the main
    process writes and reads; all processes receive what it read.
    """

    def __init__(self, folder: Path | None = None, clock: Clock | None = None) -> None:
        self.folder, self.clock = folder, clock

    def part(self, name: str) -> "PartialResults":
        """A name space of its own inside this one."""
        return self if self.folder is None or not name else PartialResults(self.folder / name, self.clock)

    def seconds(self) -> float:
        """Seconds of the computation so far, an interrupted start included up to its last part."""
        return 0.0 if self.clock is None else self.clock.seconds()

    def begin_with(self, seconds: float) -> None:
        """Count seconds of work that is used again, unless an interrupted start has counted them."""
        if self.clock is not None and distributed.is_main():
            self.clock.begin_with(seconds)

    def get(self, name: str) -> Tensors | None:
        """The part, or None if there is none; a damaged part is removed."""
        return None if self.folder is None else distributed.from_main(lambda: self._read(name))

    def put(self, name: str, part: Tensors) -> None:
        """Keep a part; every process calls this with the same tensors."""
        if self.folder is not None and distributed.is_main():
            write_tensors(self._path(name), part, {"sha256": digest(part)})
            if self.clock is not None:
                self.clock.note()
            interrupt.kept.save_steps()

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the parts that `compute_missing` would compute."""
        if self.folder is None:
            return list(names)
        return distributed.from_main(lambda: [name for name in names if self._read(name) is None])

    def compute_missing(self, names: Iterable[str], compute: Callable[[str], Tensors]) -> list[Tensors]:
        """The parts of these names, in their order, in every process; the processes share the missing ones."""
        parts = {name: self.get(name) for name in names}
        missing = [name for name, part in parts.items() if part is None]
        parts |= dict(zip(missing, distributed.shared_out(missing, compute, done=self.put), strict=True))
        return [part for part in parts.values() if part is not None]

    def clear(self) -> None:
        """Remove all parts: the computation is finished, or has other inputs now."""
        if self.folder is not None and distributed.is_main():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.safetensors"

    def _read(self, name: str) -> Tensors | None:
        path = self._path(name)
        if not path.is_file():
            return None
        try:
            part = read_tensors(path)
            if read_metadata(path).get("sha256") == digest(part):
                return part
        except InputError:  # damaged
            pass
        logger.info(f"{path}: changed since it was written; computed again")
        path.unlink()
        return None
