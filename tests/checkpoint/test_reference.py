"""The teacher must be the one that its recipe means, and exit codes survive whatever is still open: through the real command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import yaml
from dataset_server import serving
from tiny import TINY
from tiny_imagenet import NUM_ROWS, WNIDS, write_parquet

import vitdfq
from vitdfq.common.errors import GateError

HELD = """
import os, sys
from itertools import islice
import datasets, pyarrow.dataset, pyarrow.parquet, vitdfq.models
from vitdfq.data import load_labeled

codes = []
for _ in range(5):  # forked, since the imports take most of the time; each ends as any process of Python does
    child = os.fork()
    if child == 0:
        held = []
        for dataset in sys.argv[1:]:
            rows = iter(load_labeled(dataset, "validation", 4))
            held.append((rows, list(islice(rows, 2))))
        sys.exit(5)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(codes)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A set, a model for it, and a recipe that asks for both."""
    folder = tmp_path_factory.mktemp("reference")
    write_parquet(folder / "set")
    architecture, kwargs = TINY["vit"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(architecture, num_classes=len(WNIDS), **kwargs)
    timm.models.save_for_hf(model, folder / "model", model_args=kwargs, safe_serialization=True)
    recipe = {
        "name": "small",
        "model": {"name": f"local-dir:{folder / 'model'}"},
        "synthesize": {"method": "noise", "num_images": 2},
        "calibrate": {"steps": ["observe"]},
        "evaluate": {"dataset": str(folder / "set")},
        "min_agreement": 0,
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return folder


def run(folder: Path, out: Path, *overrides: str) -> dict:
    return vitdfq.run(folder / "small.yaml", out=out, overrides=overrides)


def command(folder: Path, out: Path, *overrides: str, environment=None) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-m", "vitdfq", "run", folder / "small.yaml", "--out", out]
    arguments += [f"--set={text}" for text in overrides]
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, env=environment or os.environ)


def test_another_teacher_than_the_recipes_is_refused_before_any_work(folder, tmp_path):
    top1 = run(folder, tmp_path / "any")["teacher"]["top1"]
    done = command(folder, tmp_path / "out", f"reference_top1={top1 + 0.2:.2f}")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 5 and not done.stdout, done.stderr
    assert last.startswith("error: the teacher's top-1 is") and "not the same model or data" in last
    assert not list((tmp_path / "out").glob("*.safetensors"))  # no images, no student

    assert run(folder, tmp_path / "near", f"reference_top1={top1 + 0.05:.2f}")["teacher"]["num_images"] == NUM_ROWS
    with pytest.raises(GateError, match=f"reference_top1 is {top1 - 0.2:.2f}"):
        run(folder, tmp_path / "below", f"reference_top1={top1 - 0.2:.2f}")


def test_a_subset_has_no_reference_and_is_marked(folder, tmp_path):
    metrics = run(folder, tmp_path, "reference_top1=99.9", "evaluate.num_images=8")
    assert metrics["teacher"]["num_images"] == metrics["student"]["num_images"] == 8
    card = (tmp_path / "README.md").read_text()
    assert "(only 8 images)" in card.split("---")[1] and "Measured on the first 8 images" in card


def test_how_data_is_read_does_not_shape_predictions(folder, tmp_path):
    run(folder, tmp_path)
    before = (tmp_path / "stages/finished.json").read_text()
    run(folder, tmp_path, "evaluate.streaming=false", "evaluate.num_workers=1", "evaluate.batch_size=3")
    assert (tmp_path / "stages/finished.json").read_text() == before
    assert "stages/teacher_predictions.safetensors" in json.loads(before)


def test_a_half_read_stream_keeps_the_exit_code(folder):
    """pyarrow's threads abort some processes that end while they hold a parquet stream; five must all say 5, and nothing else."""
    with serving({"someone/set": folder / "set"}) as hub:
        environment = online(hub.endpoint, folder / "home")
        arguments = [sys.executable, "-c", HELD, str(folder / "set"), "someone/set"]
        done = subprocess.run(arguments, capture_output=True, env=environment, text=True, timeout=300)
    assert (done.stdout.strip(), done.stderr) == ("[5, 5, 5, 5, 5]", "")


def test_a_gated_set_ends_the_command_with_4_and_one_line(folder, tmp_path):
    with serving({"ILSVRC/imagenet-1k": folder / "set"}, gated={"ILSVRC/imagenet-1k": 401}) as hub:
        environment = online(hub.endpoint, tmp_path / "home")
        done = command(folder, tmp_path / "out", "evaluate.dataset=imagenet-1k", environment=environment)
        page = f"{hub.endpoint}/datasets/ILSVRC/imagenet-1k"
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 4 and "Traceback" not in done.stderr, done.stderr
    assert last.startswith(f"error: dataset imagenet-1k: it is gated: accept its terms on {page}, then run `hf auth login`")


def online(endpoint: str, home: Path) -> dict[str, str]:
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    return environment | {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
