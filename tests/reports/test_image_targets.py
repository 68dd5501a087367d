"""What the images were made for, and what the teacher sees in them."""

import json

import pytest
import torch
from tiny import FEATURES, make_tiny

from vitdfq.reports.image_grid import pixels_of, to_pixels
from vitdfq.reports.image_targets import save_image_targets
from vitdfq.synthesis.synthesize import ImageTarget


def content(teacher, images, targets, tmp_path) -> dict:
    save_image_targets(teacher, images, targets, tmp_path / "reports/images.json")
    return json.loads((tmp_path / "reports/images.json").read_text())


def test_confidences_are_the_teachers(tiny_vit, images, tmp_path):
    tiny_vit.pretrained_cfg["label_names"] = [f"name {number}" for number in range(tiny_vit.num_classes)]
    about = content(tiny_vit, images[:2], [ImageTarget(3, "soft"), None], tmp_path)
    probabilities = tiny_vit(images[:2]).softmax(1)
    for row, expected in zip(about["images"], probabilities, strict=True):
        assert row["class"] == int(expected.argmax()) and row["confidence"] == pytest.approx(float(expected.max()), abs=1e-4)
    first, second = about["images"]
    assert (first["target"], first["labels"]) == (3, "soft") and "target" not in second
    assert first["target_confidence"] == pytest.approx(float(probabilities[0, 3]), abs=1e-4)
    numbers = {3, first["class"], second["class"]}
    assert about["names"] == {str(number): f"name {number}" for number in numbers}


def test_pixels_can_be_made_without_the_teacher(tiny_vit, images, tmp_path):
    about = content(tiny_vit, images, [None] * len(images), tmp_path)
    assert torch.equal(pixels_of(images, about["mean"], about["std"]), to_pixels(tiny_vit, images))


def test_classes_of_imagenet_are_named_where_timm_says_that_they_are(tiny_vit, tmp_path):
    tiny_vit.head, tiny_vit.num_classes = torch.nn.Linear(32, 1000), 1000
    images = torch.zeros(1, 3, 32, 32)
    for tag, names in (("augreg_in1k", {"7": "cock"}), ("mine", {})):
        tiny_vit.pretrained_cfg |= {"tag": tag, "label_names": None}
        about = content(tiny_vit, images, [ImageTarget(7, "hard")], tmp_path)
        assert {number: name for number, name in about["names"].items() if number == "7"} == names


def test_a_teacher_that_gives_features_has_no_classes(tmp_path):
    teacher = make_tiny(next(iter(FEATURES)))
    about = content(teacher, torch.zeros(2, 3, 32, 32), [None, None], tmp_path)
    assert about["images"] == [{}, {}] and about["names"] == {}
