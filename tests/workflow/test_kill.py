"""kill -9 after a random number of parts, and the same command again: the files are those of an uninterrupted run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

SMALL = {
    "name": "killed",
    "seed": 1,
    "model": {"name": "zoo:deit"},
    "synthesize": {"method": "sardfq", "num_images": 12, "steps": 8, "batch_size": 4},
    "quantize": {"bits": "w4a4"},
    "calibrate": {"steps": ["center", "observe", "gptq", {"distill": {"iterations": 8}}]},
    "evaluate": {"dataset": "zoo:fashion-mnist", "split": "test", "num_images": 100, "batch_size": 16},
}
QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
KEPT = ("images.safetensors", "model.safetensors", "config.json", "recipe.yaml")


def start(recipe: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "vitdfq", "run", str(recipe), "--out", str(out), "--format", "json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # with more threads sums have another order
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(recipe: Path, out: Path) -> str:
    """Run to the end; the text on stderr."""
    process = start(recipe, out)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return stderr


def parts(out: Path) -> set[str]:
    """The finished parts of unfinished stages."""
    return {
        f"{folder}/{name}"
        for folder, _, names in os.walk(out / "stages/parts")
        for name in names
        if name.endswith(".safetensors")
    }


def killed(recipe: Path, out: Path, after: int, delay: float) -> bool:
    """Run, and kill the run `delay` seconds after it has written `after` parts; False: it ended before."""
    before, written = parts(out), set()
    with start(recipe, out) as process:
        while process.poll() is None:
            written |= parts(out) - before
            if len(written) >= after:
                time.sleep(delay)
                process.send_signal(signal.SIGKILL)
                return process.wait() == -signal.SIGKILL
            time.sleep(0.01)
    return False


def survives(recipe: Path, folder: Path, kills: int, most_parts: int) -> int:
    """Kill a run `kills` times, each time after one to `most_parts` more parts. Returns how many were killed before their end."""
    finish(recipe, folder / "alone")
    rng = random.Random(0)
    hits = sum(killed(recipe, folder / "out", rng.randint(1, most_parts), rng.uniform(0, 0.3)) for _ in range(kills))
    finish(recipe, folder / "out")
    for name in KEPT:
        assert (folder / "out" / name).read_bytes() == (folder / "alone" / name).read_bytes(), name
    assert not list((folder / "out").rglob("*.tmp")) and not parts(folder / "out")
    stderr = finish(recipe, folder / "out")
    assert "synthesize:" not in stderr and "gptq:" not in stderr and "distill:" not in stderr  # nothing is computed twice
    assert "evaluate:" not in stderr
    return hits


def test_a_small_run_survives_kills(tmp_path):
    recipe = tmp_path / "killed.yaml"
    recipe.write_text(yaml.safe_dump(SMALL, sort_keys=False))
    assert survives(recipe, tmp_path, kills=1, most_parts=7)


@pytest.mark.slow
def test_the_quickstart_survives_twenty_kills(tmp_path):
    content = yaml.safe_load(QUICKSTART.read_text())
    content["synthesize"]["batch_size"] = 4  # many parts
    recipe = tmp_path / "quickstart.yaml"
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    assert survives(recipe, tmp_path, kills=30, most_parts=2) >= 20
