"""The procedural images of the validation on held-out images."""

import pytest
import torch

from vitdfq.calibration.held_out import NUM_PROCEDURAL, SEED_OFFSET, HeldOutValidation
from vitdfq.models import load_teacher
from vitdfq.preparation.prepare import prepared_copy
from vitdfq.synthesis import synthesize
from vitdfq.synthesis.teacher_filter import NoiseReference


def assert_procedural(teacher, kind):
    [images] = HeldOutValidation(teacher, torch.empty(0, 3, 32, 32), seed=3).image_sets
    expected = synthesize(teacher, method=kind, num_images=NUM_PROCEDURAL, seed=3 + SEED_OFFSET)
    assert torch.equal(images, expected)


@pytest.mark.parametrize(("suits", "kind"), [(True, "scenes"), (False, "dead_leaves")])
def test_scenes_validate_where_they_suit_the_teacher_else_dead_leaves(tiny_vit, monkeypatch, suits, kind):
    monkeypatch.setattr(NoiseReference, "suits", lambda noise, preset: suits and (preset, noise.seed) == ("scenes", 3))
    assert_procedural(tiny_vit, kind)


def test_dead_leaves_validate_students_of_a_prepared_teacher_to_which_scenes_are_noise():
    assert_procedural(prepared_copy(load_teacher("zoo:deit")), "dead_leaves")
