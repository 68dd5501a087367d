"""A killed calibration continues from its last part, and its result is that of an uninterrupted one."""

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
FIRST = {"center", "equalize", "equalize_values", "reparameterize"}  # they refuse fitted quantizers


@pytest.mark.parametrize(("step", "options"), VARIANTS, ids=str)
def test_a_killed_calibration_has_the_result_of_an_uninterrupted_one(step, options, tmp_path):
    teacher = make_tiny("vit")
    images = synthesize(teacher, method="dead_leaves", num_images=16)
    step_and_options = {step: options}
    steps = [step_and_options, "observe"] if step in FIRST else ["observe", step_and_options]

    def work(run=None):
        return calibrate(quantize(teacher, bits="w4a4"), teacher, images, steps=steps, run=run).state_dict()

    uninterrupted = work()
    resumed, kills = run_to_the_end(work, tmp_path)
    assert kills >= 2  # at least after each of the two steps
    assert kills > 4 or step not in ("gptq", "distill", "reconstruct")  # also inside these
    assert all(torch.equal(resumed[name], value) for name, value in uninterrupted.items())


def test_finished_steps_do_not_run_again(tmp_path, monkeypatch):
    teacher = make_tiny("vit")
    images = synthesize(teacher, method="dead_leaves", num_images=4)
    for start in (1, 2, 3):
        run = SharedRun(PartialResults(tmp_path))
        calibrate(quantize(teacher), teacher, images, steps=["observe", "gptq"], run=run)
        if start == 1:
            again = lambda *args, **options: pytest.fail("a finished step runs again")  # noqa: E731
            for name in ("observe", "gptq"):
                monkeypatch.setitem(STEPS, name, STEPS[name]._replace(apply=again))
