"""Folders of other libraries are refused by what they are."""

import json

import pytest

from vitdfq.common.errors import InputError
from vitdfq.models import load_teacher
from vitdfq.models.convert import convert

FOLDERS = [
    ({"adapter_config.json": {"base_model_name_or_path": "google/vit"}}, "is a PEFT adapter of 'google/vit', not a model"),
    ({"model_index.json": {"_class_name": "FluxPipeline"}}, "is a pipeline of diffusers ('FluxPipeline')"),
    ({"config.json": {"_class_name": "UNet", "_diffusers_version": "1"}}, "is a 'UNet' of diffusers"),
    ({"modules.json": [], "config.json": {"model_type": "bert"}}, "is a model of sentence-transformers"),
    ({"open_clip_config.json": {}}, "is a model of OpenCLIP"),
    ({"vit-q4.gguf": {}}, "vit-q4.gguf is a GGUF file"),
    ({"onnx/model.onnx": {}}, "model.onnx is a graph of ONNX"),
    ({"config.json": {}}, 'names no "architecture" and no "model_type"'),
    ({"config.json": {"architecture": "vit_tiny_patch16_224"}, "tf_model.h5": {}}, "tf_model.h5 is weights of TensorFlow"),
]


@pytest.mark.parametrize(("files", "message"), FOLDERS)
def test_a_folder_is_refused_by_what_it_is(files, message, tmp_path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            load_teacher(tmp_path)
        assert message in str(caught.value) and "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    with pytest.raises(InputError):
        convert(tmp_path, tmp_path / "out")


def test_a_model_of_timm_beside_that_of_another_library(folder):
    (folder / "open_clip_config.json").write_text("{}")
    (folder / "model.onnx").write_text("")
    load_teacher(folder)
