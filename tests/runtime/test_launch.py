"""Launched commands: two processes write the same bytes as one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vitdfq.common.safetensors_io import read_tensors

RECIPE = {
    "name": "launched",
    "seed": 3,
    "model": {"name": "zoo:vit"},
    "synthesize": {"method": "vitdfq", "num_images": 16, "steps": 4, "batch_size": 3},
    "quantize": {"bits": "w4a4"},
    "calibrate": {
        "steps": [
            "center",
            "observe",
            {"gptq": {"batch_size": 8}},
            {"reconstruct": {"iterations": 2, "independent": True}},
            {"distill": {"iterations": 4}},
        ]
    },
    "evaluate": {"dataset": "zoo:fashion-mnist", "split": "test", "num_images": 300, "batch_size": 16},
}
RUN = ["-m", "vitdfq", "run"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *RUN]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", *RUN]


def launch(command, folder: Path, *more, cpu=True, check=True):
    (folder / "launched.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    environment = (
        os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | ({"ACCELERATE_USE_CPU": "true"} if cpu else {})
    )
    command = [*command, folder / "launched.yaml", "--out", folder / "out", "--format", "json", *more]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    launch([sys.executable, *RUN], folder)
    return folder / "out"


@pytest.mark.parametrize("launcher", [pytest.param(TORCHRUN, marks=pytest.mark.slow), ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_give_the_bytes_of_one(launcher, alone, tmp_path):
    done = launch(launcher, tmp_path)
    out = tmp_path / "out"
    for name in ("images.safetensors", "model.safetensors"):
        assert (out / name).read_bytes() == (alone / name).read_bytes(), name
    theirs, ours = (read_tensors(folder / "stages/student_predictions.safetensors") for folder in (out, alone))
    assert theirs["logits"].equal(ours["logits"]) and theirs["labels"].equal(ours["labels"])
    assert done.stdout.count('"num_processes": 2') == 1  # one process prints
    assert done.stderr.count("evaluate: student") == 1


def test_processes_that_do_not_see_each_other_are_refused(tmp_path):
    done = launch(ACCELERATE, tmp_path, cpu=False, check=False)
    assert done.returncode != 0 and not (tmp_path / "out").exists()
    assert "started 2 processes, but each sees 1" in done.stderr


def test_an_error_of_all_processes_is_printed_once(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    done = launch(TORCHRUN, tmp_path, check=False)
    assert done.stderr.count("not empty and not a vitdfq run") == 1


FAILING = """
import os, sys
from datetime import timedelta
import vitdfq.calibration, vitdfq.workflow.stages, vitdfq.runtime.distributed
from vitdfq.runtime.progress import show_messages
from vitdfq.workflow.compare import compare

def fails(*arguments, **options):
    if os.environ["RANK"] in sys.argv[3]:
        raise RuntimeError("out of memory")
    return calibrate(*arguments, **options)

show_messages()
calibrate, vitdfq.workflow.stages.calibrate = vitdfq.workflow.stages.calibrate, fails
vitdfq.runtime.distributed.FAILURE_TIMEOUT = timedelta(seconds=5)
content = compare([sys.argv[1]], out=sys.argv[2])
if vitdfq.runtime.distributed.is_main():
    print(content["failed"])
"""


@pytest.mark.parametrize(("ranks", "printed"), [("01", "['noise']\n"), ("1", ""), pytest.param("0", "", marks=pytest.mark.slow)])
def test_a_row_fails_in_all_processes_or_the_comparison_ends(ranks, printed, tmp_path):
    """A process that continues with the next row, while the others wait for it in this one, would block for ever."""
    (tmp_path / "failing.py").write_text(FAILING)
    calibrated = {"synthesize": {"method": "noise", "num_images": 4}, "calibrate": {"steps": ["observe"]}, "compare": {}}
    (tmp_path / "noise.yaml").write_text(yaml.safe_dump(RECIPE | {"name": "noise"} | calibrated))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    command = [*TORCHRUN[: -len(RUN)], tmp_path / "failing.py", tmp_path / "noise.yaml", tmp_path / "out", ranks]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode == 0, done.stdout) == (bool(printed), printed), done.stderr
    assert "out of memory" in done.stderr and (tmp_path / "out/compare.json").exists() == bool(printed)
