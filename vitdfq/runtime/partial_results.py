"""What is finished of a stage that is not: parts on disk, so that the same command goes on where it was killed."""

import json
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from vitdfq.common.errors import InputError
from vitdfq.common.files import read_json, write_text
from vitdfq.common.safetensors_io import digest, read_metadata, read_tensors, write_tensors
from vitdfq.common.tensor_dicts import Tensors
from vitdfq.runtime import distributed
from vitdfq.runtime.progress import say


class Clock:
    """Seconds that a stage has taken so far, those before it was interrupted included, up to its last part then."""

    def __init__(self, path: Path) -> None:
        self.path, self.start = path, time.monotonic()
        try:
            before = read_json(path).get("seconds") if path.is_file() else 0.0
        except InputError:  # damaged
            before = 0.0
        self.before = before if isinstance(before, int | float) else 0.0

    def seconds(self) -> float:
        return round(self.before + time.monotonic() - self.start, 2)

    def note(self) -> None:
        write_text(self.path, json.dumps({"seconds": self.seconds()}))


class PartialResults:
    """Parts by name. Without a folder nothing is kept, and nothing is found: calls from Python need no folder.

    A shelf belongs to one call: its folder is named by all that shapes the result (`ArtifactStore.shelf`), and a part is believed to be
    of this call. Only the main process writes and reads; what it finds, all processes get.
    """

    def __init__(self, folder: Path | None = None, clock: Clock | None = None) -> None:
        self.folder, self.clock = folder, clock

    def part(self, name: str) -> "PartialResults":
        """A shelf of its own in this one."""
        return self if self.folder is None or not name else PartialResults(self.folder / name, self.clock)

    def seconds(self) -> float:
        """What the call has taken since its shelf was made, and before it was interrupted, up to the last part then."""
        return 0.0 if self.clock is None else self.clock.seconds()

    def get(self, name: str) -> Tensors | None:
        """The part, or None if it is not there; one that was changed since it was written is removed."""
        return None if self.folder is None else distributed.from_main(lambda: self._read(name))

    def put(self, name: str, part: Tensors) -> None:
        """Keep a part; every process that calls it has the same one."""
        if self.folder is not None and distributed.is_main():
            write_tensors(self._path(name), part, {"sha256": digest(part)})
            if self.clock is not None:
                self.clock.note()

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the parts that `get` would not find: exactly what `all` makes."""
        if self.folder is None:
            return list(names)
        return distributed.from_main(lambda: [name for name in names if self._read(name) is None])

    def all(self, names: Iterable[str], make: Callable[[str], Tensors]) -> list[Tensors]:
        """The parts of these names, in their order, in every process; those missing are shared out over the processes."""
        found = {name: self.get(name) for name in names}
        missing = [name for name, part in found.items() if part is None]
        found |= dict(zip(missing, distributed.shared_out(missing, make, done=self.put), strict=True))
        return [part for part in found.values() if part is not None]

    def clear(self) -> None:
        """Forget all parts: the stage they belong to is finished, or was begun otherwise."""
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
        say(f"{path}: changed since it was written; made again")
        path.unlink()
        return None
