"""kill -9 at random moments, and the same command again: it ends with the bytes of a run that was left alone."""

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
    "evaluate": {"dataset": "zoo:fashion-mnist", "split": "test", "num_images": 300, "batch_size": 16},
}
QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
KEPT = ("images.safetensors", "model.safetensors", "config.json", "recipe.yaml")


def start(recipe: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "vitdfq", "run", str(recipe), "--out", str(out), "--format", "json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # other threads add up in another order
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(recipe: Path, out: Path) -> tuple[float, str]:
    """Run to the end: (seconds, what was said)."""
    begin = time.monotonic()
    process = start(recipe, out)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return time.monotonic() - begin, said


def survives(recipe: Path, folder: Path, kills: int, least: float, most: float) -> int:
    """Kill a run so often, each time after a random share of what it takes alone; how often it was hit."""
    seconds, _ = finish(recipe, folder / "alone")
    rng, hits = random.Random(0), 0
    for _ in range(kills):
        with start(recipe, folder / "out") as process:
            try:
                process.communicate(timeout=rng.uniform(least, most) * seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                hits += 1
    finish(recipe, folder / "out")
    for name in KEPT:
        assert (folder / "out" / name).read_bytes() == (folder / "alone" / name).read_bytes(), name
    assert not list((folder / "out").rglob("*.tmp")) and not list((folder / "out/stages/parts").rglob("*.safetensors"))
    again, said = finish(recipe, folder / "out")
    assert "synthesize:" not in said and "gptq:" not in said and "distill:" not in said  # nothing is done twice
    assert again < seconds
    return hits


def test_a_small_run_survives_kills(tmp_path):
    recipe = tmp_path / "killed.yaml"
    recipe.write_text(yaml.safe_dump(SMALL, sort_keys=False))
    assert survives(recipe, tmp_path, kills=3, least=0.2, most=1.0)


@pytest.mark.slow
def test_the_quickstart_survives_twenty_kills(tmp_path):
    content = yaml.safe_load(QUICKSTART.read_text())
    content["synthesize"]["batch_size"] = 4  # parts of a few seconds: some are finished in most of the starts
    recipe = tmp_path / "quickstart.yaml"
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    assert survives(recipe, tmp_path, kills=30, least=0.03, most=0.09) >= 20
