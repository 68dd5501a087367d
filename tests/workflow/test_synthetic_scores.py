"""A check without data: images that calibration never saw show what its own images hide."""

import logging

import pytest
import torch

import vitdfq
from vitdfq.synthesis.procedural import PROCEDURAL
from vitdfq.workflow.synthetic_scores import (
    CALIBRATION,
    expected_on_real_images,
    outputs_by_kind,
    synthetic_scores,
    unseen_images,
    warn_of_gap,
)

pytestmark = pytest.mark.unit


def test_every_procedural_kind_is_there_and_none_is_an_image_of_the_run(tiny_vit):
    unseen = unseen_images(tiny_vit, seed=3)
    assert set(unseen) == set(PROCEDURAL)
    for kind, images in unseen.items():
        own = vitdfq.synthesize(tiny_vit, method=kind, num_images=4, seed=3)
        assert torch.cdist(images.flatten(1), own.flatten(1)).min() > 1


def test_a_student_calibrated_on_unlike_images_is_found_out(tiny_vit, caplog):
    unseen = unseen_images(tiny_vit, seed=0)
    flat = 0.01 + 0.001 * torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for images, is_found in ((flat, True), (vitdfq.synthesize(tiny_vit, method="dead_leaves", num_images=32), False)):
        student = vitdfq.calibrate(
            vitdfq.quantize(tiny_vit, bits="w8a8"), tiny_vit, images, steps=[{"observe": {"num_cover": 0}}]
        )
        scores = synthetic_scores(outputs_by_kind(student, tiny_vit, images, unseen), "classes")
        assert scores[CALIBRATION]["num_images"] == len(images) and set(scores) == {CALIBRATION, *PROCEDURAL}
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="vitdfq"):
            warn_of_gap(scores)
        assert bool(caplog.messages) == is_found, scores


def test_a_student_equal_to_its_teacher_is_no_reason_to_warn(tiny_vit, images, caplog):
    scores = synthetic_scores(outputs_by_kind(tiny_vit, tiny_vit, images, {"dead_leaves": images}), "classes")
    warn_of_gap(scores)
    assert (
        scores["dead_leaves"] == {"num_images": 8, "agreement": 100.0, "kl": 0.0, "logits_sqnr_db": None} and not caplog.messages
    )


def test_what_is_expected_does_not_depend_on_the_images_of_calibration(tiny_vit, images):
    student = vitdfq.calibrate(vitdfq.quantize(tiny_vit, bits="w8a8"), tiny_vit, images, steps=["observe"])
    unseen = {"noise": images}
    expected = [
        expected_on_real_images(outputs_by_kind(student, tiny_vit, shown, unseen), "classes") for shown in (images, 9 * images)
    ]
    assert expected[0] == expected[1] and expected[0]["agreement"]["value"] > 50
    assert expected_on_real_images({"noise": (images, images)}, "features") is None
