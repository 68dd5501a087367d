"""Which painted images a teacher gets."""

from dataclasses import replace

import pytest
import torch

from vitdfq.models import load_teacher
from vitdfq.synthesis import METHODS, TeacherFacts, synthesize, teacher_filter
from vitdfq.synthesis.resolve import resolve_method

AMONG = {"dead_leaves": 0.5, "smi": 0.1}
WARY = replace(resolve_method("agm", mix=AMONG), skip_if_noise_to_teacher=True)


@pytest.fixture
def chosen(tiny_vit, monkeypatch):
    """What is left of a method's `mix` where leaves are so far from the standard normal, and noise 1."""
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


def test_leaves_that_are_noise_to_the_teacher_are_left_out_and_the_others_share_their_part(chosen):
    assert chosen(WARY, 0.9) == {"smi": pytest.approx(0.2)}


@pytest.mark.parametrize("distance", [0.4, None])  # None: a teacher without LayerNorms
def test_leaves_that_it_sees_stay(chosen, distance):
    assert chosen(WARY, distance) == pytest.approx(AMONG)


def test_what_is_asked_for_by_name_is_made(chosen):
    assert METHODS["vitdfq"].skip_if_noise_to_teacher
    assert chosen(resolve_method("vitdfq", mix=AMONG), 0.9) == AMONG


def test_a_teacher_of_small_grey_clothes_gets_no_leaves():
    teacher = load_teacher("zoo:deit")
    images = synthesize(teacher, method="vitdfq", num_images=6, steps=1)
    leaves = synthesize(teacher, method="dead_leaves", num_images=6)
    assert not any(torch.equal(image, leaf) for image in images for leaf in leaves)
