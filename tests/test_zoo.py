"""The zoo: file sizes, the structure of its models, and the accuracies in their configs."""

import json

import pytest

import vitdfq
from vitdfq.models.load import ZOO

NAMES = sorted(path.parent.name for path in ZOO.glob("*/config.json"))


def test_there_are_three_architectures():
    assert NAMES == ["deit", "swin", "vit"]


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small(name):
    assert (ZOO / name / "model.safetensors").stat().st_size < 4e6


@pytest.mark.parametrize("name", NAMES)
def test_stated_accuracy_holds_on_the_first_images(name):
    stated = json.loads((ZOO / name / "config.json").read_text())["top1_fashion_mnist_test"]
    row = vitdfq.evaluate(vitdfq.load_teacher(f"zoo:{name}"), dataset="zoo:fashion-mnist", split="test", num_images=1000)
    assert abs(row["top1"] - stated) < 2.5  # three standard errors of 1,000 images


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_stated_accuracy_is_exact_on_all_images(name):
    stated = json.loads((ZOO / name / "config.json").read_text())["top1_fashion_mnist_test"]
    row = vitdfq.evaluate(vitdfq.load_teacher(f"zoo:{name}"), dataset="zoo:fashion-mnist", split="test")
    assert stated >= 91 and abs(row["top1"] - stated) <= 0.02


def test_models_have_the_parts_of_real_ones():
    deit, swin = vitdfq.load_teacher("zoo:deit"), vitdfq.load_teacher("zoo:swin")
    assert deit.num_prefix_tokens == 2
    blocks = [block for layer in swin.layers for block in layer.blocks]
    assert any(max(block.shift_size) > 0 for block in blocks)
    assert all(hasattr(block.attn, "relative_position_bias_table") for block in blocks)
    assert any(hasattr(layer.downsample, "reduction") for layer in swin.layers)
