import json
import shlex
import subprocess
import sys

import pytest
import torch

import vitdfq
from vitdfq.checkpoint.describe import summary
from vitdfq.checkpoint.save_load import FORMAT_VERSION, describe
from vitdfq.common.errors import InputError


@pytest.fixture
def folder(tiny_vit, tmp_path):
    prepared = vitdfq.prepare(tiny_vit)
    overrides = {"blocks.0.attn.qkv": {"bits": 6}, "blocks.1.mlp.fc2": {"activation": {"bits": None}}}
    student = vitdfq.quantize(prepared, overrides=overrides)
    return vitdfq.save(vitdfq.calibrate(student, prepared, torch.randn(2, 3, 32, 32), steps=["observe"]), tmp_path)


def test_layers_and_their_bits(folder):
    layers = describe(folder)["layers"]
    assert layers["patch_embed.proj"] == {"layers": 1, "weight bits": "8", "input bits": "8"}
    assert layers["attn.qkv"] == {"layers": 3, "weight bits": "6, 4", "input bits": "6, 4"}
    assert layers["mlp.fc2"] == {"layers": 3, "weight bits": "4", "input bits": "4, float"}
    assert set(layers) == {"patch_embed.proj", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "head"}


@pytest.mark.parametrize(
    ("options", "ranges", "strategies"),
    [
        ({}, "static", {("tensor", False)}),
        (
            {"policy": "vitdfq_dynamic", "activation": {"observer": "min_max"}},
            "dynamic: they follow the values",
            {("tensor", False), ("token", True)},
        ),
        ({"policy": "vitdfq_dynamic", "bits": "w4a16"}, None, set()),
    ],
)
def test_dynamic_ranges_are_told_from_static_ones(options, ranges, strategies, tiny_vit, tmp_path):
    student = vitdfq.calibrate(vitdfq.quantize(tiny_vit, **options), tiny_vit, torch.randn(2, 3, 32, 32), steps=["observe"])
    found = describe(vitdfq.save(student, tmp_path))
    assert found["activation ranges"] == ranges and ("activation ranges" in summary(found)) == (ranges is not None)
    groups = json.loads((tmp_path / "config.json").read_text())["quantization_config"]["config_groups"].values()
    inputs = [group["input_activations"] for group in groups if group["input_activations"]]
    assert {(grid["strategy"], grid["dynamic"]) for grid in inputs} == strategies


def test_size_accuracy_and_recipe(folder):
    found = describe(folder)
    assert found["bytes"] == (folder / "model.safetensors").stat().st_size and found["packed layers"] == 14
    assert found["float bytes"] == 4 * sum(part.numel() for part in vitdfq.load(folder, dequantize=True).parameters())
    assert found["prepared by"] == ["rotate_residual", "rotate_heads", "rotate_mlp"] and found["format"] == FORMAT_VERSION
    assert found["kl"] is None and found["top1"] is None and found["reproduce"] is None
    student = {"top1": 81.5, "num_images": 10, "agreement": 88.5, "kl": 0.25}
    metrics = {"recipe": "mine", "student": student, "teacher": {"top1": 90}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "recipe.yaml").write_text("name: mine\n")
    found = describe(folder)
    assert (found["top1"], found["teacher top1"], found["recipe"]) == (81.5, 90, "mine")
    assert [(key, value) for key, value in found.items() if key in student] == [("agreement", 88.5), ("kl", 0.25), ("top1", 81.5)]
    assert found["reproduce"] == f"vitdfq run {folder / 'recipe.yaml'}"
    spaced = folder.rename(folder.with_name("my run"))
    assert shlex.split(describe(spaced)["reproduce"]) == ["vitdfq", "run", str(spaced / "recipe.yaml")]
    with pytest.raises(InputError, match=r"config.json: is a file; a checkpoint of vitdfq is the folder"):
        describe(spaced / "config.json")


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"student": 3}', '{"student": {"top1": "x"}}', '{"student": {"kl": "x"}}', '{"recipe": {}}', '{"teacher": NaN}'],
)
def test_metrics_of_something_else(folder, text):
    (folder / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=r"metrics\.json"):
        describe(folder)


@pytest.mark.integration
def test_on_the_command_line(folder):
    command = [sys.executable, "-m", "vitdfq", "info", str(folder)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "attn.qkv" in shown and "6, 4" in shown and len(shown.splitlines()) > 15
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == describe(folder)
