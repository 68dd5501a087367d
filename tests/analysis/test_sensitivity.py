"""Sites, units and weights that hurt are found where they were planted."""

import pytest
import torch

import vitdfq
from vitdfq.analysis.errors import error_of, output_scores, sqnr_db
from vitdfq.analysis.passes import HeldOutPasses
from vitdfq.analysis.sensitivity import site_sensitivities, unit_errors, weight_errors
from vitdfq.analysis.untrained import calibrated_switches, weights_at
from vitdfq.runtime.run import Run


@pytest.fixture
def others() -> torch.Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def passes_of(teacher, images, others, steps=("observe",), **options) -> HeldOutPasses:
    student = vitdfq.quantize(teacher, **options)
    return HeldOutPasses(calibrated_switches(student, teacher, images, list(steps), 0, Run()), teacher, others)


@pytest.mark.parametrize("site", ["blocks.0.mlp.fc2", "blocks.2.attn.qkv", "blocks.1.attn.av", "head"])
def test_the_site_of_low_precision_is_the_first(site, tiny_vit, images, others):
    passes = passes_of(tiny_vit, images, others, bits="w8a8", overrides={site: {"bits": 2}})
    rows = site_sensitivities(passes, None, Run())
    assert len(rows) == 20 and rows[0].site == site and set(rows[0].bits.values()) == {2}
    assert error_of(rows[0].alone) > 3 * error_of(rows[1].alone)
    assert rows[0] is min(rows, key=lambda row: error_of(row.all_but))  # everything but it is at 8 bits


def test_the_unit_and_the_kind_of_low_precision_have_the_largest_error(tiny_vit, images, others):
    overrides = {"blocks.1.*": {"weight": {"bits": 2}}, "blocks.2.*": {"activation": {"bits": 2}}}
    rows = {row.unit: row for row in unit_errors(passes_of(tiny_vit, images, others, bits="w8a8", overrides=overrides))}
    assert list(rows) == ["embed", "blocks.0", "blocks.1", "blocks.2", "head"]
    assert min(rows, key=lambda name: rows[name].weights) == "blocks.1"
    assert min(rows, key=lambda name: rows[name].activations) == "blocks.2"
    assert (
        rows["blocks.1"].activations > rows["blocks.1"].weights + 10 and rows["blocks.1"].both <= rows["blocks.1"].weights + 0.5
    )


def test_a_unit_of_float_activations_has_no_activation_error(tiny_vit, images, others):
    rows = unit_errors(passes_of(tiny_vit, images, others, bits="w4a16"))
    assert all(row.activations is None and row.weights == row.both for row in rows)


@torch.no_grad()
def test_what_is_kept_from_pass_to_pass_changes_no_result(tiny_vit, images, others):
    passes = passes_of(tiny_vit, images, others, bits="w3a3")
    switches = passes.switches
    for site in switches.sites:
        switches.only(switches.parts_of([site]))
        assert torch.allclose(passes.outputs_alone(passes.unit_of[site]), switches.student(others), atol=1e-5)
        switches.only([part for part in switches.parts if part[0] != site])
        assert torch.allclose(passes.outputs_of_rest(passes.unit_of[site]), switches.student(others), atol=1e-5)


def test_more_bits_have_smaller_errors(tiny_vit, images, others):
    passes = passes_of(tiny_vit, images, others, steps=("observe", "gptq"), bits="w4a8")
    weights = {bits: weights_at(passes.switches, tiny_vit, images, bits, None, Run()) for bits in (2, 4, 8)}
    errors = weight_errors(passes, weights, Run())
    assert list(errors) == list(passes.switches.float_weights)
    for layer, row in errors.items():
        assert row[2] > row[4] > row[8] > 0, layer
        rounded = weights[2][layer].flatten(1)
        assert max(len(values.unique()) for values in rounded) <= 4


def test_weights_at_the_bits_of_the_student_are_its_weights(tiny_vit, images, others):
    passes = passes_of(
        tiny_vit, images, others, steps=("center", "observe", "gptq"), bits="w4a4", overrides={"*": {"weight": {"bits": 4}}}
    )
    rounded = weights_at(passes.switches, tiny_vit, images, 4, ["gptq"], Run())
    for layer, weight in passes.switches.quantized_weights.items():
        assert torch.equal(rounded[layer], weight), layer


def test_what_the_caller_measures_is_reported(tiny_vit, images, others):
    calls = []

    def measure(student) -> dict:
        calls.append(student)
        return {"top1": float(len(calls)), "top5": None, "read_by": "knn"}

    rows = site_sensitivities(passes_of(tiny_vit, images, others, bits="w8a8"), measure, Run())
    assert len(calls) == 2 * len(rows)
    assert sorted(row.alone_measured["top1"] for row in rows) == [float(number) for number in range(1, 41, 2)]
    assert all(row.all_but_measured == {"top1": row.alone_measured["top1"] + 1, "top5": None} for row in rows)


def test_scores_by_hand():
    target = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    outputs = torch.tensor([[2.0, 0.0], [2.0, 2.5]])
    scores = output_scores(outputs, target, "classes")
    assert scores["agreement"] == 100 and scores["sqnr_db"] == pytest.approx(10 * torch.log10(torch.tensor(8 / 4.25)).item())
    probabilities, other = target[1].softmax(0), outputs[1].softmax(0)
    assert scores["kl"] == pytest.approx((probabilities * (probabilities / other).log()).sum().item() / 2)
    assert error_of(scores) == scores["kl"]
    assert error_of(output_scores(outputs, target, "features")) == pytest.approx(4.25 / 8)
    assert sqnr_db(target, target) is None and error_of(output_scores(target, target, "features")) == 0
