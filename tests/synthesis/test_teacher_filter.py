"""The filter that leaves procedural images out of a mix for a teacher to which they are noise."""

from dataclasses import replace

import pytest
import torch

from vitdfq.models import load_teacher
from vitdfq.preparation.prepare import prepared_copy
from vitdfq.synthesis import METHODS, TeacherFacts, synthesize, teacher_filter
from vitdfq.synthesis.resolve import resolve_method
from vitdfq.synthesis.teacher_filter import NoiseReference

MIX = {"dead_leaves": 0.5, "smi": 0.1}
FILTERED = replace(resolve_method("agm", mix=MIX), skip_unsuitable=True)


@pytest.fixture
def filtered(tiny_vit, monkeypatch):
    """Return a function: the filtered method for a distance of dead leaves, where that of noise is 1."""
    facts = TeacherFacts.of(tiny_vit)
    noise = teacher_filter.procedural_images(tiny_vit, facts, METHODS["noise"], teacher_filter.NUM_IMAGES, 0)

    def for_distance(method, distance):
        monkeypatch.setattr(
            teacher_filter,
            "quality",
            lambda teacher, images: {"layer_norm_distance": 1.0 if torch.equal(images, noise) else distance},
        )
        return teacher_filter.for_teacher(method, tiny_vit, facts, 0)

    return for_distance


def test_leaves_that_are_noise_to_the_teacher_are_left_out_and_other_shares_grow(filtered):
    assert filtered(FILTERED, 0.9).mix == {"smi": pytest.approx(0.2)}


@pytest.mark.parametrize("distance", [0.4, None])  # None: a teacher without LayerNorms
def test_leaves_nearer_than_noise_stay(filtered, distance):
    assert filtered(FILTERED, distance).mix == pytest.approx(MIX)


def test_a_mix_given_by_name_is_not_filtered(filtered):
    assert METHODS["vitdfq"].skip_unsuitable and METHODS["vitdfq"].rendered
    for distance in (0.1, 0.9):
        method = filtered(resolve_method("vitdfq", mix=MIX), distance)
        assert method.mix == MIX and method.steps


@pytest.mark.parametrize("distance", [0.4, None])
def test_scenes_that_suit_the_teacher_take_the_place_of_inverted_images(filtered, distance):
    assert filtered(METHODS["vitdfq"], distance) == METHODS["scenes"]


def test_a_teacher_to_which_scenes_are_noise_gets_inverted_images(filtered):
    method = filtered(METHODS["vitdfq"], 0.9)
    assert method.steps == METHODS["vitdfq"].steps and set(method.mix) == {"psaq", "smi"}


def test_noise_is_measured_once_and_only_where_it_is_needed(tiny_vit, monkeypatch):
    measured = []
    monkeypatch.setattr(
        teacher_filter, "quality", lambda teacher, images: measured.append(images) or {"layer_norm_distance": 1.0}
    )
    reference = NoiseReference(tiny_vit, TeacherFacts.of(tiny_vit), 0)
    assert reference.suits("psaq") and not measured  # optimized
    assert (
        not reference.suits("scenes") and not reference.suits("dead_leaves") and reference.ratio(torch.zeros(9, 3, 32, 32)) == 1
    )
    assert len(measured) == 4 and len(measured[-1]) == teacher_filter.NUM_IMAGES


def test_a_message_says_that_no_steps_are_needed(tiny_vit, monkeypatch, caplog):
    monkeypatch.setattr(NoiseReference, "suits", lambda *arguments: True)
    with caplog.at_level("INFO", logger="vitdfq"):
        images = synthesize(tiny_vit, method="vitdfq", num_images=3)
    assert "takes images of scenes, which suit the teacher: no steps" in caplog.text
    assert torch.equal(images, synthesize(tiny_vit, method="scenes", num_images=3))


@pytest.mark.integration
def test_a_teacher_of_small_gray_images_gets_no_leaves():
    teacher = load_teacher("zoo:deit")
    images = synthesize(teacher, method="vitdfq", num_images=6, steps=1)
    leaves = synthesize(teacher, method="dead_leaves", num_images=6)
    assert not any(torch.equal(image, leaf) for image in images for leaf in leaves)


@pytest.mark.integration
@pytest.mark.parametrize("prepared", [False, True])
def test_scenes_are_noise_to_a_teacher_of_small_gray_images_also_once_it_is_rotated(prepared):
    teacher = load_teacher("zoo:deit")
    teacher = prepared_copy(teacher) if prepared else teacher
    assert not NoiseReference(teacher, TeacherFacts.of(teacher), 0).suits("scenes")


@pytest.mark.integration
def test_images_inverted_from_a_teacher_are_not_noise_to_it_and_noise_is():
    teacher = load_teacher("zoo:deit")
    noise, inverted = (synthesize(teacher, method=method, num_images=8, seed=1) for method in ("noise", "agm"))
    reference = NoiseReference(teacher, TeacherFacts.of(teacher), 0)
    assert reference.ratio(noise) == pytest.approx(1, abs=0.1)
    assert reference.ratio(inverted) < teacher_filter.MAX_NOISE_RATIO
