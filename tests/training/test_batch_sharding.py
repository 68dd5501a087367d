"""Two launched processes that reconstruct blocks together: the student of one process, and half of the work for each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import together
import torch
from together import BATCH, CASES, ITERATIONS, reconstruct_tiny

from vitdfq.runtime.run import Run
from vitdfq.training.batch_sharding import run_for_batches, sum_gradients

PROCESSES = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
    search_path = os.pathsep.join([str(Path(together.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": search_path}
    done = subprocess.run(
        [*command, together.__file__, folder], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (folder / "stderr.txt").write_text(done.stderr)
    return folder


def changes(result: dict[str, torch.Tensor]) -> torch.Tensor:
    """The changes of all tensors by the training, as one vector."""
    names = sorted(name.removeprefix("after/") for name in result if name.startswith("after/"))
    return torch.cat([(result[f"after/{name}"] - result[f"before/{name}"]).double().flatten() for name in names])


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_the_student_of_one(case, folder):
    alone = reconstruct_tiny(CASES[case])
    first, second = (torch.load(folder / f"{case}_{index}.pt") for index in range(PROCESSES))
    assert all(value.equal(second[name]) for name, value in first.items() if name != "batch_sizes")
    expected = changes(alone)
    assert expected.norm() > 0
    assert (changes(first) - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("case", CASES)
def test_each_process_trains_on_its_share_of_a_batch(case, folder):
    shares = [torch.load(folder / f"{case}_{index}.pt")["batch_sizes"].tolist() for index in range(PROCESSES)]
    expected = {"small_batch": [[1] * ITERATIONS] * 2, "independent": [[], [BATCH] * ITERATIONS]}
    assert shares == expected.get(case, [[3] * ITERATIONS, [2] * ITERATIONS])


def test_progress_counts_the_steps_of_this_process(folder):
    """The main process, which reports, trains three of five units alone, or all five together with the other process."""
    stderr = (folder / "stderr.txt").read_text()
    assert stderr.count(f"reconstruct: {3 * ITERATIONS}/{3 * ITERATIONS} ") == 1
    assert stderr.count(f"reconstruct: {5 * ITERATIONS}/{5 * ITERATIONS} ") == len(CASES) - 1


class TwoProcesses(Run):
    """One of two processes that have equal tensors."""

    count = 2

    def total(self, value):
        return 2 * value


def test_batches_smaller_than_the_number_of_processes_are_not_shared():
    run = TwoProcesses()
    assert run_for_batches(run, 2) is run
    alone = run_for_batches(run, 1)
    assert alone.count == 1 and list(alone.share([1, 2, 3])) == [1, 2, 3]


def test_gradients_are_summed_and_a_missing_one_counts_as_zero():
    parameters = [torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)]
    parameters[0].grad = torch.tensor([1.0, 2.0])
    sum_gradients(parameters, TwoProcesses())
    assert parameters[0].grad.tolist() == [2.0, 4.0] and parameters[1].grad.tolist() == [0.0, 0.0, 0.0]
