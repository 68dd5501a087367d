import pytest
from tiny import make_tiny

from vitdfq.calibration.calibrate import check_steps
from vitdfq.calibration.distill import DistillOptions
from vitdfq.calibration.efforts import DEFAULT_EFFORT, EFFORTS, default_steps
from vitdfq.quantization import quantize


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("bits", ["w8a8", "w6a6", "w4a4", "w3a8", "w4a16"])
def test_every_effort_has_steps_that_exist_for_all_bits(effort, bits):
    student = quantize(make_tiny("vit"), bits=bits)
    planned = check_steps(student, effort=effort, seed=3)
    names = [step.name for step in planned]
    assert "observe" in names and "gptq" in names
    assert all((name in names) == (bits != "w4a16") for name in ("equalize_values", "center"))
    fewest = 6 if bits == "w6a6" else 8 if bits == "w8a8" else int(bits[1])
    assert ("distill" in names) == (fewest <= EFFORTS[effort].most_bits)
    assert all(step.options.seed == 3 for step in planned if step.name == "distill")


def test_more_effort_trains_longer():
    student = quantize(make_tiny("vit"), bits="w4a4")
    iterations = {}
    for effort in EFFORTS:
        options = {step.name: step.options for step in check_steps(student, effort=effort)}
        iterations[effort] = options["distill"].iterations if "distill" in options else 0
    assert iterations["quick"] == 0 < iterations["standard"] == DistillOptions().iterations < iterations["thorough"]


def test_no_effort_is_the_default_one():
    student = quantize(make_tiny("vit"), bits="w4a4")
    assert check_steps(student) == check_steps(student, effort=DEFAULT_EFFORT)
    assert default_steps(student) == default_steps(student, DEFAULT_EFFORT)


def test_an_unknown_effort_and_one_beside_steps_are_refused():
    student = quantize(make_tiny("vit"), bits="w4a4")
    with pytest.raises(ValueError, match="unknown effort 'through', did you mean 'thorough'"):
        check_steps(student, effort="through")
    with pytest.raises(ValueError, match="leave one of the two out"):
        check_steps(student, ["observe"], effort="quick")
