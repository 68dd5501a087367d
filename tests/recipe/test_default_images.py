"""The images of a recipe that names no method."""

import logging

import pytest

from vitdfq.quantization.options import SPELLINGS
from vitdfq.recipe import load_recipe
from vitdfq.recipe.default_images import default_images
from vitdfq.synthesis.options import SynthesisOptions


def synthesis_of(bits, **section):
    return load_recipe({"model": {"name": "zoo:vit"}, "quantize": {"bits": bits}, "synthesize": section}).synthesis


@pytest.mark.parametrize("bits", sorted(SPELLINGS))
def test_fewer_bits_never_get_less(bits):
    section, _ = default_images({}, bits)
    options = SynthesisOptions(**section)
    wider, _ = default_images({}, "w8a8")
    assert options.num_images >= wider["num_images"] and options.resolved().steps <= 100


def test_eight_bits_take_seconds_and_bits_that_are_trained_take_more():
    eight, seven, six, four = (synthesis_of(bits) for bits in ("w8a8", "w7a7", "w6a6", "w4a4"))
    assert (eight.method, eight.num_images, eight.resolved().steps) == ("dead_leaves", 32, 0)
    assert (seven.method, seven.num_images, seven.resolved().steps) == ("vitdfq", 32, 50)
    for trained in (six, four):
        assert (trained.method, trained.num_images, trained.resolved().steps) == ("vitdfq", 128, 100)


def test_a_number_of_images_keeps_the_choice_and_anything_else_the_preset():
    assert synthesis_of("w8a8", num_images=7).method == "dead_leaves"
    options = synthesis_of("w8a8", steps=3)
    assert (options.method, options.steps) == ("vitdfq", 3)
    assert synthesis_of("w8a8", method="psaq").resolved().steps == 1000


def test_a_message_says_what_was_chosen_and_why(caplog):
    with caplog.at_level(logging.INFO, logger="vitdfq"):
        synthesis_of("w8a8")
        synthesis_of("w8a8", method="noise")
    [message] = caplog.messages
    assert message.startswith("synthesize: 32 images of dead_leaves, since the recipe names no method; w8a8 needs ranges and")


def test_further_bits_are_calibrated_on_the_same_images_and_so_decide_too(caplog):
    with caplog.at_level(logging.INFO, logger="vitdfq"):
        recipe = load_recipe({"model": {"name": "zoo:vit"}, "quantize": {"bits": "w8a8"}, "also_bits": ["w6a6", "w4a8"]})
    assert (recipe.synthesis.method, recipe.synthesis.num_images) == ("vitdfq", 128)
    assert "w4a8 is trained on them" in caplog.text
