"""A ValueError of the library is reported at the key that its message names."""

import pytest

from vitdfq.common.errors import AccessError, RecipeError
from vitdfq.recipe.blame import named_keys, without_locator
from vitdfq.recipe.document import Document

SECTION = {
    "method": "noise",
    "steps": 5,
    "bits": "w4a4",
    "losses": {"attention": {"weight": 2.0}, "attention_prior": {"weight": -1.0}},
    "weight": {"bits": 9},
    "overrides": {"blocks.0.*": {"bits": 4, "activation": {"bits": 1}}, "head*": {"bits": 1}},
    "entries": ["center", {"distill": {"iterations": 3}}, {"distill": {"iterations": 0}}],
    "labels": "sft",
}


@pytest.mark.parametrize(
    ("message", "keys"),
    [
        ("steps must not be negative", ("steps",)),
        ("unknown label kind 'sft', did you mean 'soft'?; choices: method", ("labels",)),
        ("unknown loss 'attention', did you mean 'attention_prior'?; choices: attention_prior, weight", ("losses", "attention")),
        ("unknown loss 'attention'; choices: attention_prior, weight", ("losses", "attention")),
        ("the weight of loss 'attention_prior' must be a finite number, got -1.0", ("losses", "attention_prior", "weight")),
        ("weight: bits is 9; choices: 2 to 8, or null for float", ("weight", "bits")),
        ("overrides['head*']: bits is 1; choices: 2 to 8", ("overrides", "head*", "bits")),
        ("overrides['blocks.0.*'].activation: bits is 1", ("overrides", "blocks.0.*", "activation", "bits")),
        ("step 'distill': iterations 0 is not a whole number of at least 1", ("entries", 2, "distill", "iterations")),
        ("unknown calibration step 'center'", ("entries", 0)),
        ("a step is a name or a mapping, not {'distill': {'iterations': 3}}", ("entries", 1)),
        ("method 'noise' has no loss, so 5 steps would change nothing", ("method",)),
        ("nothing of it fits", ()),
        ("stepsize 15", ()),
    ],
)
def test_the_deepest_key_that_is_named(message, keys):
    assert named_keys(message, SECTION) == keys


@pytest.mark.parametrize(
    ("message", "keys", "left"),
    [
        ("weight: bits is 9", ("quantize", "weight", "bits"), "bits is 9"),
        ("overrides['a.*'].softmax: bits is 9", ("quantize", "overrides", "a.*", "softmax", "bits"), "bits is 9"),
        ("step 'distill': lr is -1", ("calibrate", "steps", 0, "distill", "lr"), "lr is -1"),
        ("bits preset 'w9': choices", ("quantize", "bits"), "bits preset 'w9': choices"),
        ("model: it is too large", ("quantize", "bits"), "model: it is too large"),
    ],
)
def test_a_locator_that_repeats_the_key_is_cut(message, keys, left):
    assert without_locator(message, keys) == left


def test_errors_keep_their_meaning():
    document = Document("d", {"s": {"rate": 2}}, places={("s",): "d:1", ("s", "rate"): "d:2"})
    with pytest.raises(RecipeError, match=r"^d:2: s\.rate: rate must be below 1$"), document.blaming("s"):
        raise ValueError("rate must be below 1")
    with pytest.raises(RecipeError, match=r"^d:1: s: too large$"), document.blaming("s"):
        raise RecipeError("too large")
    with pytest.raises(RecipeError, match=r"^d:2: s\.rate: wrong$"), document.blaming("s"):
        document.fail(("s", "rate"), "wrong")  # placed already
    with pytest.raises(AccessError, match=r"^rate limit$"), document.blaming("s"):
        raise AccessError("rate limit")
