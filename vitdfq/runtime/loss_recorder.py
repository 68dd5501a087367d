"""The losses of one artifact's synthesis and training, in a JSON file, so that a report can draw them when the run is over."""

import json
import time
from pathlib import Path
from typing import Any

from vitdfq.common.errors import InputError
from vitdfq.common.files import read_json, write_text
from vitdfq.runtime import distributed

RECORDED = ("synthesize", "reconstruct", "distill")  # titles of the bars whose numbers are losses
MOST_POINTS = 400  # of one curve in the file; even
SECONDS_BETWEEN_WRITES = 10.0  # what a kill may lose


def losses_file(artifact: str) -> str:
    """Return where the losses of an artifact are kept, as a path in the folder of the run."""
    return f"stages/losses/{Path(artifact).stem}.json"


class LossRecorder:
    """Receives the numbers of progress bars, and keeps a curve of each loss.

    A curve of many steps is kept as the means of `stride` values each. Of several processes the main one records what it computed
    itself. The curves of an interrupted start with the same key are continued.

    Args:
        path: of the JSON file {"shaped_by": key, "curves": {name: {"stride": 4, "points": [[step, value], ...]}}}.
        key: names all that shapes the artifact: curves of another key are replaced.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.curves: dict[str, dict[str, Any]] | None = None  # None: nothing was recorded since the start
        self.pending: dict[str, list[float]] = {}
        self.last_write = time.monotonic()

    def record(self, part: str, numbers: dict[str, float], step: int) -> None:
        """Record what a bar reports.

        Args:
            part: of the run that opened the bar, "1_distill" for example: two bars may have one title.
            numbers: {"distill/loss": 0.5}.
            step: of the bar; steps that the file holds from here on are forgotten, since they are computed again.
        """
        numbers = {f"{part}/{name}": value for name, value in numbers.items() if name.partition("/")[0] in RECORDED}
        if not numbers or not distributed.is_main():
            return
        if self.curves is None:
            self.curves = self._read()
        for name, value in numbers.items():
            curve = self.curves.setdefault(name, {"stride": 1, "points": []})
            while curve["points"] and curve["points"][-1][0] >= step:
                curve["points"].pop()
            self._append(curve, self.pending.setdefault(name, []), value, step)
        if time.monotonic() - self.last_write >= SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        """Write the file, if anything was recorded."""
        if self.curves is not None:
            write_text(self.path, json.dumps({"shaped_by": self.key, "curves": self.curves}) + "\n")
            self.last_write = time.monotonic()

    def remove_others(self) -> None:
        """Remove the file, if it is of another key: the artifact is made anew, perhaps without any loss."""
        if distributed.is_main() and self._content().get("shaped_by") != self.key:
            self.path.unlink(missing_ok=True)

    def _append(self, curve: dict[str, Any], pending: list[float], value: float, step: int) -> None:
        pending.append(value)
        if len(pending) < curve["stride"]:
            return
        curve["points"].append([step, float(f"{sum(pending) / len(pending):.5g}")])
        pending.clear()
        if len(curve["points"]) == MOST_POINTS:
            pairs = zip(curve["points"][::2], curve["points"][1::2], strict=True)
            curve["points"] = [[later, float(f"{(first + second) / 2:.5g}")] for (_, first), (later, second) in pairs]
            curve["stride"] *= 2

    def _read(self) -> dict[str, dict[str, Any]]:
        content = self._content()
        return content["curves"] if content.get("shaped_by") == self.key and "curves" in content else {}

    def _content(self) -> dict[str, Any]:
        try:
            return read_json(self.path) if self.path.is_file() else {}
        except InputError:  # damaged
            return {}
