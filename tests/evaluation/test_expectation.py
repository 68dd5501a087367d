"""What is expected of real images: measures on synthetic ones, and intervals from constants whose origin is known."""

from pathlib import Path

import pytest
import torch

from vitdfq.common.files import read_json
from vitdfq.evaluation.expectation import (
    CONSTANTS,
    LEAST_LOSS,
    Expectation,
    Line,
    crossed_agreement,
    expectation,
    log_odds,
    lost_signal,
)

pytestmark = pytest.mark.unit


def logits(count: int = 24, classes: int = 6) -> torch.Tensor:
    return 3 * torch.randn(count, classes, generator=torch.Generator().manual_seed(0))


def with_error(target: torch.Tensor, size: float) -> torch.Tensor:
    return target + size * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))


def test_each_error_is_tried_on_each_image():
    target = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    error = torch.tensor([[-2.0, 0.0], [0.0, 0.0]])  # the first image keeps its class; the second would not, with this error
    assert crossed_agreement(target + error, target) == 0.75
    assert crossed_agreement(target, target) == 1.0


def test_lost_signal_is_relative_to_what_differs_between_images():
    target = logits()
    assert lost_signal(target, target) == 0.0
    # The same for all classes: no probability changes.
    assert lost_signal(target + 5.0, target + torch.arange(24.0)[:, None]) == pytest.approx(0.0, abs=1e-9)
    assert lost_signal(target.mean(0).expand_as(target), target) == pytest.approx(1.0)
    same = torch.ones(4, 3)
    assert lost_signal(same, same) == 1.0  # a teacher that tells no image from another


def test_a_larger_error_lets_expect_less():
    target = logits()
    results = [expectation([(with_error(target, size), target)]) for size in (0.01, 0.3, 1.0, 10.0)]
    values = [result["agreement"]["value"] for result in results]
    losses = [result["top1_loss"]["value"] for result in results]
    assert values == sorted(values, reverse=True) and losses == sorted(losses)
    assert values[0] > 98 > 60 > values[-1]
    for result in results:
        assert result["level"] == 0.9
        for numbers in (result["agreement"], result["top1_loss"]):
            assert numbers["low"] <= numbers["value"] <= numbers["high"]


def test_a_student_that_gives_one_class_to_all_images_is_found_out_where_its_teacher_does_too():
    target = logits() / 3 + torch.tensor([9.0, 0, 0, 0, 0, 0])
    constant = target.mean(0).expand_as(target)
    assert (constant.argmax(1) == target.argmax(1)).all() and crossed_agreement(constant, target) == 1.0
    expected, of_exact = (expectation([(outputs, target)]) for outputs in (constant, with_error(target, 0.01)))
    assert expected["agreement"]["value"] < of_exact["agreement"]["low"] and expected["agreement"]["high"] < 99


def test_kinds_of_images_are_taken_together():
    target = logits()
    outputs = with_error(target, 1.0)
    halves = expectation(zip(outputs.split(12), target.split(12), strict=True))
    assert halves == expectation([(outputs, target)]) != expectation([(outputs[:12], target[:12])])


def test_one_logit_tells_no_classes_apart():
    assert expectation([(torch.ones(4, 1), torch.ones(4, 1))]) is None


def test_a_small_loss_is_not_told_apart_from_a_gain():
    line = Line(crossed=1.0, lost=0.0, intercept=0.0, low=-1.0, high=1.0)
    model = Expectation(0.9, line, line)
    small, large = (model.of((log_odds(share), 0.0))["top1_loss"] for share in (0.003, 0.2))
    assert small["low"] == -100 * LEAST_LOSS and small["value"] == pytest.approx(0.3) and 8 < large["low"] < 9


def test_the_constants_say_how_they_were_made():
    content, model = read_json(CONSTANTS), Expectation.read()
    script = content["command"].split()[1]
    assert (Path(__file__).parents[2] / script).is_file() and len(content["models"]) >= 3 and content["students"] > 50
    for line in (model.disagreement, model.loss):
        assert line.crossed > 0 and line.lost > 0 and line.low < 0 < line.high
