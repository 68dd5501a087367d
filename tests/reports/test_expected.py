"""The expected numbers below a run's table, and beside them what was measured."""

import pytest

from vitdfq.reports.expected import OF_FEATURES, expected_notes, expected_rows

pytestmark = pytest.mark.unit

EXPECTED = {
    "agreement": {"value": 96.54, "low": 81.0, "high": 99.2},
    "top1_loss": {"value": 1.2, "low": -0.25, "high": 7.9},
    "level": 0.9,
}


def metrics(top1: float | None = 89.5, num_images: int | None = 1000, **changes) -> dict:
    agreement = None if num_images is None else 97.0
    student = {"top1": top1, "agreement": agreement, "num_images": num_images}
    teacher = {"top1": None if top1 is None else 91.0}
    return {"teacher": teacher, "student": student, "expected": EXPECTED} | changes


def test_the_truth_stands_beside_what_is_expected():
    assert expected_notes(metrics()).splitlines() == [
        "expected on real images, from synthetic images alone, 90 % intervals:",
        "  agreement with the teacher: 96.5 % (81.0 to 99.2); measured: 97.0 %",
        "  loss of top-1: 1.2 points (-0.2 to 7.9); measured: 1.5 points",
    ]


def test_what_was_not_measured_is_left_out():
    unlabeled, nothing = expected_notes(metrics(top1=None)), expected_notes(metrics(top1=None, num_images=None))
    assert "measured: 97.0 %" in unlabeled and unlabeled.endswith("(-0.2 to 7.9)") and "nothing was" not in unlabeled
    assert "intervals; nothing was measured on real images:" in nothing and "measured: " not in nothing


def test_of_features_nothing_is_expected():
    of_features = metrics(expected=None)
    of_features["student"]["cosine"] = 0.99
    assert expected_notes(of_features) == OF_FEATURES and expected_rows(of_features) == []
    earlier = metrics()
    del earlier["expected"]
    assert expected_notes(earlier) == ""
