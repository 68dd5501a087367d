"""Every calibration goes on where it was killed, and ends as if it had not been."""

import pytest
import torch
from dying import run_to_the_end
from tiny import make_tiny

from vitdfq.calibration import STEPS, calibrate
from vitdfq.quantization import quantize
from vitdfq.runtime.partial_results import PartialResults
from vitdfq.runtime.shared_run import SharedRun
from vitdfq.synthesis import synthesize

SHORT = {"distill": {"iterations": 8}, "reconstruct": {"iterations": 3}}
VARIANTS = [(step, SHORT.get(step, {})) for step in STEPS] + [("reconstruct", SHORT["reconstruct"] | {"independent": True})]
FIRST = {"center", "equalize", "reparameterize"}  # they want quantizers that are not fitted


@pytest.mark.parametrize(("step", "options"), VARIANTS, ids=str)
def test_a_killed_calibration_ends_as_one_that_was_not(step, options, tmp_path):
    teacher = make_tiny("vit")
    images = synthesize(teacher, method="dead_leaves", num_images=16)
    step_and_options = {step: options}
    steps = [step_and_options, "observe"] if step in FIRST else ["observe", step_and_options]

    def work(run=None):
        return calibrate(quantize(teacher, bits="w4a4"), teacher, images, steps=steps, run=run).state_dict()

    wanted = work()
    ended, kills = run_to_the_end(work, tmp_path)
    assert kills >= 2  # after each of the two steps, at least
    assert kills > 4 or step not in ("gptq", "distill", "reconstruct")  # and inside these
    assert all(torch.equal(ended[name], value) for name, value in wanted.items())


def test_what_is_finished_is_not_done_again(tmp_path, monkeypatch):
    teacher = make_tiny("vit")
    images = synthesize(teacher, method="dead_leaves", num_images=4)
    for done in (1, 2, 3):
        run = SharedRun(PartialResults(tmp_path))
        calibrate(quantize(teacher), teacher, images, steps=["observe", "gptq"], run=run)
        if done == 1:
            again = lambda *args, **options: pytest.fail("a finished step runs again")  # noqa: E731
            for name in ("observe", "gptq"):
                monkeypatch.setitem(STEPS, name, STEPS[name]._replace(apply=again))
