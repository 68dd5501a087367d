"""The filter that leaves procedural images out of a mix for a teacher to which they are noise."""

from dataclasses import replace

import pytest
import torch

from vitdfq.models import load_teacher
from vitdfq.synthesis import METHODS, TeacherFacts, synthesize, teacher_filter
from vitdfq.synthesis.resolve import resolve_method

MIX = {"dead_leaves": 0.5, "smi": 0.1}
FILTERED = replace(resolve_method("agm", mix=MIX), skip_unsuitable=True)


@pytest.fixture
def filtered_mix(tiny_vit, monkeypatch):
    """Return a function: the filtered `mix` of a method for a distance of dead leaves, where that of noise is 1."""
    facts = TeacherFacts.of(tiny_vit)
    noise = teacher_filter.procedural_images(tiny_vit, facts, METHODS["noise"], teacher_filter.NUM_IMAGES, 0)

    def for_distance(method, distance):
        monkeypatch.setattr(
            teacher_filter,
            "quality",
            lambda teacher, images: {"layer_norm_distance": 1.0 if torch.equal(images, noise) else distance},
        )
        return teacher_filter.for_teacher(method, tiny_vit, facts, 0).mix

    return for_distance


def test_leaves_that_are_noise_to_the_teacher_are_left_out_and_other_shares_grow(filtered_mix):
    assert filtered_mix(FILTERED, 0.9) == {"smi": pytest.approx(0.2)}


@pytest.mark.parametrize("distance", [0.4, None])  # None: a teacher without LayerNorms
def test_leaves_nearer_than_noise_stay(filtered_mix, distance):
    assert filtered_mix(FILTERED, distance) == pytest.approx(MIX)


def test_a_mix_given_by_name_is_not_filtered(filtered_mix):
    assert METHODS["vitdfq"].skip_unsuitable
    assert filtered_mix(resolve_method("vitdfq", mix=MIX), 0.9) == MIX


@pytest.mark.integration
def test_a_teacher_of_small_gray_images_gets_no_leaves():
    teacher = load_teacher("zoo:deit")
    images = synthesize(teacher, method="vitdfq", num_images=6, steps=1)
    leaves = synthesize(teacher, method="dead_leaves", num_images=6)
    assert not any(torch.equal(image, leaf) for image in images for leaf in leaves)
