"""A folder as timm writes them: a tiny ViT with random weights in half precision."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

ARGUMENTS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.fixture
def folder(tmp_path) -> Path:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **ARGUMENTS)
    path = tmp_path / "tiny"
    path.mkdir()
    halves = {name: value.half() for name, value in model.state_dict().items()}
    save_file(halves, path / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 5,
        "model_args": ARGUMENTS,
        "pretrained_cfg": {
            "tag": "toy",
            "input_size": [3, 32, 32],
            "fixed_input_size": True,
            "mean": [0.25, 0.25, 0.25],
            "std": [0.5, 0.5, 0.5],
            "num_classes": 5,
            "classifier": "head",
            "label_names": ["a", "b", "c", "d", "e"],
            "license": "apache-2.0",
        },
    }
    (path / "config.json").write_text(json.dumps(config))
    return path
