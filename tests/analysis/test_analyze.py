"""analyze(): one call, plain values, no model changed."""

import json
from importlib import import_module

import pytest
import torch
from tiny import FEATURE_KINDS, TO_CALIBRATE, make_tiny

import vitdfq
from vitdfq.models import image_size
from vitdfq.quantization.modules import weighted_modules


def images_for(teacher, count: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, *image_size(teacher), generator=torch.Generator().manual_seed(seed))


def average(student) -> float:
    layers = [(layer.weight_quantizer.bits, layer.weight.numel()) for layer in weighted_modules(student)]
    return sum(bits * count for bits, count in layers) / sum(count for _, count in layers)


@pytest.mark.parametrize("kind", TO_CALIBRATE)
def test_every_family_gets_an_analysis_and_bits_within_the_budget(kind):
    pytest.importorskip("scipy")
    teacher = make_tiny(kind)
    images = images_for(teacher)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    analysis = vitdfq.analyze(teacher, images, budget="average-bits=3", choices=[2, 3, 8], steps=["observe"], bits="w3a8")
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert (analysis.num_images, analysis.num_held_out) == (6, 2)
    student = vitdfq.quantize(teacher, bits="w3a8")
    sites = [name for name, part in student.named_modules() if hasattr(part, "quantizer_names")]
    assert sorted(row.site for row in analysis.sites) == sorted(sites)
    errors = [row.alone["kl"] for row in analysis.sites]
    assert errors == sorted(errors, reverse=True)
    mixed = vitdfq.quantize(teacher, bits="w3a8", overrides=analysis.allocation.overrides())
    assert average(mixed) == pytest.approx(analysis.allocation.cost) and analysis.allocation.cost <= 3 + 1e-9
    assert analysis.allocation.uniform.bits == 3
    assert json.loads(json.dumps(analysis.to_dict()))["sites"][0]["site"] == analysis.sites[0].site


@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_features_are_ranked_by_their_error(kind):
    teacher = make_tiny(kind)
    analysis = vitdfq.analyze(teacher, images_for(teacher), steps=["observe"], bits="w4a4")
    ratios = [row.alone["sqnr_db"] for row in analysis.sites]
    assert ratios == sorted(ratios) and all(row.alone["kl"] is None for row in analysis.sites)


def test_a_student_is_analyzed_as_its_float_model_with_the_same_arguments(tiny_vit, images):
    student = vitdfq.quantize(tiny_vit, bits="w3a4", overrides={"head": {"bits": 2}})
    vitdfq.calibrate(student, tiny_vit, images, steps=["observe", {"reconstruct": {"iterations": 2}}])
    before = {name: value.clone() for name, value in student.state_dict().items()}
    held_out = images_for(tiny_vit, 4, seed=3)
    steps = ["observe", {"reconstruct": {"iterations": 2}}]  # of which the second is left out
    given = vitdfq.analyze(student, images, teacher=tiny_vit, held_out=held_out, steps=steps)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    again = vitdfq.analyze(tiny_vit, images, held_out=held_out, steps=["observe"], bits="w3a4", overrides={"head": {"bits": 2}})
    assert given.to_dict() == again.to_dict() and given.num_held_out == 4


def test_a_budget_leaves_bits_of_activations_and_layers_in_float_alone(tiny_vit, images):
    pytest.importorskip("scipy")
    earlier = {"head": {"weight": {"bits": None}}, "blocks.0.*": {"activation": {"bits": 6}}}
    analysis = vitdfq.analyze(tiny_vit, images, budget="average-bits=4", choices=[2, 4, 8], steps=["observe"], overrides=earlier)
    assert "head" not in analysis.allocation.bits
    student = vitdfq.quantize(tiny_vit, overrides=analysis.allocation.overrides(earlier))
    assert student.head.weight_quantizer.bits is None
    fc1 = student.blocks[0].mlp.fc1
    assert (fc1.weight_quantizer.bits, fc1.input_quantizer.bits) == (analysis.allocation.bits["blocks.0.mlp.fc1"], 6)


def test_the_same_bits_everywhere_are_chosen_where_others_are_no_better(tiny_vit, images, monkeypatch):
    module = import_module("vitdfq.analysis.analyze")  # `vitdfq.analysis.analyze` is the function
    monkeypatch.setattr(module, "allocate", lambda errors, costs, budget: dict.fromkeys(errors, 2))
    options = {"budget": "average-bits=5", "choices": [2, 5], "steps": ["observe"], "bits": "w4a8"}
    allocation = vitdfq.analyze(tiny_vit, images, **options).allocation
    assert set(allocation.bits.values()) == {5} and allocation.uniform.bits == 5
    assert (allocation.cost, allocation.scores) == (allocation.uniform.cost, allocation.uniform.scores)


def test_what_cannot_be_is_refused_in_one_line(tiny_vit, images):
    student = vitdfq.quantize(tiny_vit)
    for arguments, message in (
        ({"model": student}, "a student needs teacher="),
        ({"model": student, "teacher": tiny_vit, "bits": "w3a3"}, "the student says how it is quantized; leave out bits"),
        ({"model": tiny_vit, "teacher": tiny_vit}, "this model is in float itself"),
        ({"model": tiny_vit, "images": images[:3]}, "3 images are too few"),
        (
            {"model": tiny_vit, "budget": "average-bits=1.5"},
            "budget average-bits=1.5: the least possible is 2, with 2 bits everywhere",
        ),
        ({"model": tiny_vit, "budget": "bits=4"}, "unknown budget 'bits'"),
        ({"model": tiny_vit, "bits": "w9a9"}, "unknown bits 'w9a9'"),
        ({"model": torch.nn.Linear(2, 2)}, "analyze takes what load_teacher returned"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            vitdfq.analyze(**{"images": images, "steps": ["observe"]} | arguments)
        assert "\n" not in str(caught.value)
