"""Two processes, really launched, that reconstruct blocks together: the student of one, and half the work for each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import together
import torch
from together import BATCH, CASES, ITERATIONS, reconstructed

from vitdfq.runtime.run import Run
from vitdfq.training.batch_sharding import run_for_batches, sum_gradients

PROCESSES = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
    found = os.pathsep.join([str(Path(together.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": found}
    done = subprocess.run(
        [*command, together.__file__, folder], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stderr)
    return folder


def learned(found: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the training changed, as one vector."""
    names = sorted(name.removeprefix("after/") for name in found if name.startswith("after/"))
    changes = [(found[f"after/{name}"] - found[f"before/{name}"]).double().flatten() for name in names]
    return torch.cat(changes)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_does(case, folder):
    alone = reconstructed(CASES[case])
    first, second = (torch.load(folder / f"{case}_{index}.pt") for index in range(PROCESSES))
    assert all(value.equal(second[name]) for name, value in first.items() if name != "seen")
    change = learned(alone)
    assert change.norm() > 0
    assert (learned(first) - change).norm() < 1e-3 * change.norm()


@pytest.mark.parametrize("case", CASES)
def test_each_process_trains_on_its_share_alone(case, folder):
    shares = [torch.load(folder / f"{case}_{index}.pt")["seen"].tolist() for index in range(PROCESSES)]
    expected = {"small_batch": [[1] * ITERATIONS] * 2, "independent": [[], [BATCH] * ITERATIONS]}
    assert shares == expected.get(case, [[3] * ITERATIONS, [2] * ITERATIONS])


def test_progress_counts_what_this_process_does(folder):
    """Of five units the main process, which speaks, trains three by itself, or all five together with the other one."""
    said = (folder / "said.txt").read_text()
    assert said.count(f"reconstruct: {3 * ITERATIONS}/{3 * ITERATIONS} ") == 1
    assert said.count(f"reconstruct: {5 * ITERATIONS}/{5 * ITERATIONS} ") == len(CASES) - 1


class TwoProcesses(Run):
    """This process of two whose sums are both processes' alike."""

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
