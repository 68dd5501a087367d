"""Numbers that no calibration leaves behind: the file's tensor is named."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import vitdfq
from vitdfq.common.errors import InputError

STORED = Path(__file__).with_name("stored")


@pytest.mark.parametrize(
    ("version", "name", "value", "message"),
    [
        ("v2", "blocks.0.attn.qk.left_quantizer.zero_point", 3.5, "is no code of 4 bits"),
        ("v2", "blocks.0.attn.qk.left_quantizer.zero_point", 16, "is no code of 4 bits"),
        ("v2", "blocks.0.mlp.fc2.weight_quantizer.scale", 0, "is not positive"),
        ("v3", "blocks.0.mlp.fc2.weight_scale", -1, "weight_quantizer.scale is not positive"),
        ("v3", "blocks.0.mlp.fc2.weight_scale", 3e38, "blocks.0.mlp.fc2.weight is not finite"),
        ("v3", "blocks.0.attn.settings", torch.nan, "is not finite"),
        ("v3", "blocks.0.mlp.fc2.input_zero_point", 100, "is no code of 4 bits"),
        ("v3", "blocks.0.mlp.fc2.weight_shape", 33, "weight_shape says [33, 33], the layer has [32, 128]"),
    ],
)
def test_values_that_no_calibration_gives_are_refused(version, name, value, message, tmp_path):
    folder = Path(shutil.copytree(STORED / version, tmp_path / "checkpoint"))
    tensors = load_file(folder / "model.safetensors")
    tensors[name].fill_(value)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError) as caught:
        vitdfq.load(folder)
    assert message in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors | {"more": torch.zeros(1)}, "'more' is not part of it"),
        (lambda tensors: tensors | {"head.bias": torch.zeros(10).half()}, "head.bias is F16 (10,), expected F32 (10,)"),
        (lambda tensors: tensors | {"head.bias": torch.zeros(9)}, "head.bias is F32 (9,), expected F32 (10,)"),
        (lambda tensors: {name: value for name, value in tensors.items() if "head" not in name}, "is missing, and 6 more"),
    ],
)
def test_tensors_that_do_not_fit(change, message, tmp_path):
    folder = Path(shutil.copytree(STORED / "v3", tmp_path / "checkpoint"))
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    with pytest.raises(InputError) as caught:
        vitdfq.load(folder)
    assert message in str(caught.value)
