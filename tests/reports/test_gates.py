"""The accuracy gate of a run."""

import pytest
import torch

from vitdfq.common.errors import GateError
from vitdfq.reports.gates import check_student


class Constant(torch.nn.Module):
    """A model with the same logits (N, C) for any images."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))
        self.num_classes = 2

    def forward(self, images):
        return self.logits[: len(images)]


def test_a_broken_student_does_not_pass():
    images, teacher = torch.zeros(4, 3, 8, 8), Constant([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    check_student(teacher, teacher, images)
    with pytest.raises(GateError, match="not finite"):
        check_student(Constant([[float("nan"), 0.0]] * 4), teacher, images)
    half = Constant([[1.0, 0.0]] * 4)
    with pytest.raises(GateError, match=r"agrees with its teacher on 50.0 % .* min_agreement \(55.0\)"):
        check_student(half, teacher, images)
    check_student(half, teacher, images, min_agreement=50)


def test_features_are_compared_by_their_cosine():
    images, teacher = torch.zeros(2, 3, 8, 8), Constant([[1.0, 0.0], [0.6, 0.8]])
    teacher.num_classes = 0
    check_student(teacher, teacher, images)
    student = Constant([[0.6, 0.8], [0.6, 0.8]])  # the cosine is 1.6 / 2; of one image to the next 0.6, so 0.64 are required
    student.num_classes = 0
    check_student(student, teacher, images)
    with pytest.raises(GateError, match=r"a cosine of 0.800000 .* min_cosine \(0.900000\)"):
        check_student(student, teacher, images, min_cosine=0.9)
    student.logits = torch.nn.Parameter(torch.tensor([[0.6, 0.8], [1.0, 0.0]]))  # each image has the other's features
    with pytest.raises(GateError, match=r"a cosine of 0.600000 .* min_cosine \(0.640000\)"):
        check_student(student, teacher, images)
    student.logits = torch.nn.Parameter(torch.full((2, 2), float("nan")))
    with pytest.raises(GateError, match="the student's features on the synthetic images are not finite"):
        check_student(student, teacher, images)
