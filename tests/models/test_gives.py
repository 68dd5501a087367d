"""Classes or features: decided from timm's tags, for every one that it publishes weights of."""

from types import SimpleNamespace

import pytest
import timm
import torch
from timm.models import get_pretrained_cfg
from tiny import make_tiny

from vitdfq.models import feature_width, gives, output_name

CLASSES = {1000, 11221, 11821, 19168, 21841, 21842, 21843, 115217}  # of ImageNet-1k, its larger sets, and Bamboo


def published(name: str, **changed) -> SimpleNamespace:
    """A model's facts as timm has them, without building it."""
    config = get_pretrained_cfg(name).to_dict() | changed
    return SimpleNamespace(num_classes=config["num_classes"], pretrained_cfg=config)


def test_every_tag_of_timm():
    """No projection is as wide as a set of classes, so the width shows what the tag's name says."""
    wrong = {
        name: (gives(model), model.num_classes)
        for name in timm.list_pretrained()
        if (gives(model := published(name)) == "classes") != (model.num_classes in CLASSES)
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_base_patch16_clip_224.openai", "features"),
        ("vit_base_patch32_clip_224.laion2b", "features"),
        ("vit_base_patch16_clip_224.openai_ft_in12k", "classes"),
        ("vit_base_patch16_clip_224.laion2b_ft_in12k_in1k", "classes"),
        ("convnext_large_mlp.clip_laion2b_ft_320", "features"),
        ("vit_pe_core_base_patch16_224.fb", "features"),
        ("vit_small_patch14_dinov2.lvd142m", "features"),
        ("vit_base_patch16_siglip_224.v2_webli", "features"),
        ("deit_tiny_patch16_224.fb_in1k", "classes"),
    ],
)
def test_by_name(name, expected):
    assert gives(published(name)) == expected


def test_a_new_head_on_a_tower_of_clip_is_a_classifier():
    assert gives(published("vit_base_patch16_clip_224.openai", num_classes=10)) == "classes"
    assert gives(published("vit_base_patch16_clip_224.openai_ft_in1k", num_classes=512)) == "classes"
    assert gives(published("vit_base_patch16_clip_224.openai", label_names=["a", "b"])) == "classes"


def test_a_folder_without_a_tag_goes_by_the_width():
    assert gives(published("vit_base_patch16_clip_224.openai", tag="")) == "features"
    assert gives(published("vit_base_patch16_clip_224.openai", tag="", num_classes=100)) == "classes"
    assert gives(published("vit_base_patch16_224.augreg_in1k", tag="", num_classes=512)) == "classes"


def test_outputs_have_a_name_and_a_width():
    tower, classifier = published("vit_base_patch16_clip_224.openai"), published("vit_base_patch16_224.augreg_in1k")
    assert [output_name(model) for model in (tower, classifier)] == ["embedding", "logits"] and feature_width(tower) == 512
    backbone = make_tiny("backbone")
    assert output_name(backbone) == "features" and feature_width(backbone) == backbone(torch.zeros(1, 3, 28, 28)).shape[1]
