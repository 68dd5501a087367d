"""Presets, and changes to them."""

import inspect
import re
from dataclasses import fields
from typing import get_type_hints

import pytest
from pydantic import TypeAdapter
from tiny import make_tiny

from vitdfq.synthesis import LOSSES, METHODS, Method, resolve_method, synthesize
from vitdfq.synthesis.objective.weighted_losses import resolve_losses
from vitdfq.synthesis.options import SynthesisOptions

MAPPING = r"losses takes a mapping \{name: \{weight: 1\.0, option: value\}\}"  # of messages, as a pattern


@pytest.mark.parametrize("name", METHODS)
def test_every_preset_resolves(name):
    method = resolve_method(name)
    assert method == METHODS[name]
    assert [term.name for term in resolve_losses(method.losses)] == list(METHODS[name].losses)
    assert method.summary


def test_published_weights():
    weights = {name: spec["weight"] for name, spec in METHODS["sardfq"].losses.items()}
    assert weights == {"attention_prior": 100, "class_confidence": 1, "total_variation": 0.05}
    assert (METHODS["sardfq"].max_regions, METHODS["sardfq"].labels, METHODS["sardfq"].steps) == (4, "soft", 1000)
    assert (METHODS["psaq"].max_regions, METHODS["psaq"].labels, METHODS["psaq"].steps) == (1, "hard", 1000)


def test_losses_of_the_presets_of_other_papers():
    losses = {name: {loss: spec["weight"] for loss, spec in METHODS[name].losses.items()} for name in METHODS}
    base = {"class_confidence": 1, "total_variation": 0.05}
    mimiq = {"head_similarity": 1, "class_confidence": 1, "smoothness": 2.5e-5}
    assert losses["agm"] == base | {"margin_discrepancy": 0.5}
    assert METHODS["agm"].losses["margin_discrepancy"]["after"] == 0.3
    assert losses["gznq"] == {"class_confidence": 1, "input_statistics": 1, "statistics_prior": 0.1}
    assert losses["mimiq"] == mimiq
    assert losses["maskaq"] == mimiq | {"attention_entropy": 1}
    assert losses["fdd"] == {"patch_similarity": 1, "total_variation": 0.05, "frequency_consistency": 1}
    assert losses["psaq_v2"] == {"patch_similarity": 1, "total_variation": 0.05, "discrepancy": 1}  # without a class loss


def test_changes_are_merged_without_changing_the_preset():
    changed = resolve_method(
        "sardfq",
        {
            "attention_prior": {"include_cls": False},
            "patch_similarity": {"weight": 2},
            "total_variation": {"weight": 0},
        },
        steps=7,
        lr=None,
    )
    terms = {term.name: term for term in resolve_losses(changed.losses)}
    assert set(terms) == {"attention_prior", "class_confidence", "patch_similarity"}  # weight 0 is off
    assert (terms["attention_prior"].weight, terms["attention_prior"].options) == (100, {"include_cls": False})
    assert terms["patch_similarity"].weight == 2
    assert (changed.steps, changed.lr) == (7, None)
    assert METHODS["sardfq"].losses["attention_prior"] == {"weight": 100.0}


def test_method_of_a_section():
    section = {
        "method": "psaq",
        "num_images": 9,
        "steps": 3,
        "parametrization": "decoder",
        "precision": "bfloat16",
        "prune_at": [0.5],
    }
    losses = {"patch_similarity": {"weight": 0}}
    assert SynthesisOptions(**section | {"losses": losses}).resolved() == resolve_method(
        "psaq", losses, steps=3, parametrization="decoder", precision="bfloat16", prune_at=[0.5]
    )
    assert SynthesisOptions().resolved() == resolve_method(SynthesisOptions().method)


def test_generator_losses_apply_to_the_generator_engine_only():
    pixels, generated = (resolve_method("acq", engine=engine).losses["pair_distance"] for engine in ("images", "generator"))
    assert pixels == {"weight": 0.1, "after": 0.1}
    assert generated == {"weight": 0.01, "after": 0.1, "form": "ratio"}
    assert resolve_method("acq", {"pair_distance": {"weight": 2}}, engine="generator").losses["pair_distance"]["weight"] == 2


def test_another_engine_resets_rate_and_regions():
    generated = resolve_method("sardfq", engine="generator")
    assert (generated.engine, generated.max_regions, generated.lr) == ("generator", 1, None)
    assert generated.losses == METHODS["sardfq"].losses
    assert resolve_method("gdfq", engine="images").engine == "images"


def test_options_reach_both_the_loss_and_its_draw():
    resolve_method("sardfq", {"attention_prior": {"mixture": "sum", "include_cls": True}})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "sardqf"}, "unknown synthesis method 'sardqf', did you mean 'sardfq'"),
        (
            {"losses": {"atention_prior": {"weight": 1}}},
            "unknown loss 'atention_prior', did you mean 'attention_prior'",
        ),
        ({"losses": {"attention_prior": {"wieght": 1}}}, "unknown option 'wieght' .*did you mean 'weight'"),
        ({"losses": {"attention_prior": {"include_clss": 1}}}, "did you mean 'include_cls'"),
        (
            {"losses": {"total_variation": {"weight": "0.1"}}},
            "weight of loss 'total_variation' must be a finite number",
        ),
        ({"losses": {"total_variation": {"weight": float("nan")}}}, "must be a finite number"),
        ({"losses": {"total_variation": 0.1}}, rf"{MAPPING}; loss 'total_variation' takes a mapping or a function, got 0.1"),
        ({"losses": {"total_variation": None}}, rf"{MAPPING}; loss 'total_variation' takes a mapping or a function, got None"),
        ({"losses": ["total_variation"]}, rf"{MAPPING}, got \['total_variation'\]$"),
        ({"losses": []}, rf"{MAPPING}, got \[\]$"),
        ({"losses": "total_variation"}, rf"{MAPPING}, got 'total_variation'$"),
        ({"losses": 0}, rf"{MAPPING}, got 0$"),
        ({"labels": "sofft"}, "unknown label kind 'sofft', did you mean 'soft'"),
        ({"label_range": [3.0]}, r"label_range takes \[lower, upper\]"),
        ({"max_regions": 5}, "max_regions must be from 1 to 4"),
        ({"max_regions": 0}, "max_regions must be from 1 to 4"),
        ({"steps": -1}, "steps must not be negative"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"method": "noise", "steps": 5}, "method 'noise' has no loss"),
        ({"engine": "generater"}, "unknown engine 'generater', did you mean 'generator'"),
        ({"student": "w4a4"}, "student 'w4a4' goes with engine 'generator'"),
        ({"engine": "generator", "student": "w9a4"}, "unknown bits 'w9a4', did you mean 'w8a4'"),
        ({"engine": "generator", "max_regions": 2}, "max_regions 2 goes with engine 'images'"),
        ({"engine": "generator", "parametrization": "decoder"}, "parametrization 'decoder' goes with engine 'images'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        resolve_method(**({"method": "sardfq"} | arguments))


def test_every_option_can_be_checked_from_a_recipe():
    """Recipes are checked against the dataclass: annotated, a default, a line in the docstring; help shows the same."""
    hints, signature = get_type_hints(SynthesisOptions), inspect.signature(synthesize)
    for field in fields(SynthesisOptions):
        TypeAdapter(hints[field.name]).validate_python(field.default)
        assert f"        {field.name}: " in SynthesisOptions.__doc__
        assert signature.parameters[field.name].default == field.default


@pytest.mark.parametrize("losses", [["total_variation"], "total_variation", 0.1, {"total_variation": 0.1}], ids=str)
def test_synthesize_refuses_losses_that_are_no_mapping_of_mappings(losses):
    with pytest.raises(ValueError, match=MAPPING):
        synthesize(make_tiny("vit"), losses=losses, num_images=1, steps=1)


def test_the_docstring_of_method_lists_the_fields_that_are_no_keyword():
    names = {field.name for field in fields(Method)}
    keywords = inspect.signature(synthesize).parameters.keys()
    assert set(re.findall(r"`(\w+)`", Method.__doc__)) - {"synthesize"} == names - keywords


def test_losses_are_listed_by_their_own_name():
    assert all(loss.function.__name__ == name for name, loss in LOSSES.items())
