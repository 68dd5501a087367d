"""Presets and what may be said in their place."""

import inspect

import pytest
from pydantic import TypeAdapter

from vitdfq.synthesis import LOSSES, METHODS, resolve_method, synthesize
from vitdfq.synthesis.objective.terms import resolve_losses
from vitdfq.synthesis.resolve import method_of


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


def test_what_the_presets_of_other_papers_ask_for():
    losses = {name: {loss: spec["weight"] for loss, spec in METHODS[name].losses.items()} for name in METHODS}
    base = {"class_confidence": 1, "total_variation": 0.05}
    mimiq = {"head_similarity": 1, "class_confidence": 1, "smoothness": 2.5e-5}
    assert losses["agm"] == base | {"margin_discrepancy": 0.5}
    assert METHODS["agm"].losses["margin_discrepancy"]["after"] == 0.3
    assert losses["gznq"] == {"class_confidence": 1, "input_statistics": 1, "statistics_prior": 0.1}
    assert losses["mimiq"] == mimiq
    assert losses["maskaq"] == mimiq | {"attention_entropy": 1}
    assert losses["fdd"] == {"patch_similarity": 1, "total_variation": 0.05, "frequency_consistency": 1}
    assert losses["psaq_v2"] == {"patch_similarity": 1, "total_variation": 0.05, "discrepancy": 1}  # asks for no class


def test_changes_merge_and_leave_the_preset():
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


def test_a_section_is_the_method_that_synthesize_would_follow():
    section = {
        "method": "psaq",
        "num_images": 9,
        "steps": 3,
        "parametrization": "decoder",
        "precision": "bfloat16",
        "prune_at": [0.5],
    }
    losses = {"patch_similarity": {"weight": 0}}
    assert method_of(section | {"losses": losses}) == resolve_method(
        "psaq", losses, steps=3, parametrization="decoder", precision="bfloat16", prune_at=[0.5]
    )
    assert method_of({}) == resolve_method("sardfq")


def test_a_generator_has_weights_of_its_own():
    pixels, painted = (resolve_method("acq", engine=engine).losses["pair_distance"] for engine in ("images", "generator"))
    assert pixels == {"weight": 0.1, "after": 0.1}
    assert painted == {"weight": 0.01, "after": 0.1, "form": "ratio"}
    assert resolve_method("acq", {"pair_distance": {"weight": 2}}, engine="generator").losses["pair_distance"]["weight"] == 2


def test_another_engine_takes_what_is_its_own():
    painted = resolve_method("sardfq", engine="generator")
    assert (painted.engine, painted.max_regions, painted.lr) == ("generator", 1, None)
    assert painted.losses == METHODS["sardfq"].losses
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
        ({"losses": {"total_variation": 0.1}}, "loss 'total_variation' takes a mapping"),
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


def test_every_keyword_can_be_checked_from_a_recipe():
    """Recipes are checked against the signature: annotated, a default, a line in the docstring."""
    _, *keywords = inspect.signature(synthesize).parameters.values()
    for keyword in keywords:
        assert keyword.kind is keyword.KEYWORD_ONLY
        if keyword.name == "shelf":  # of the run, not of a recipe
            continue
        TypeAdapter(keyword.annotation).validate_python(keyword.default)
        assert f"        {keyword.name}: " in synthesize.__doc__


def test_losses_are_listed_by_their_own_name():
    assert all(loss.function.__name__ == name for name, loss in LOSSES.items())
