"""Folders of weights that are missing, damaged or dangerous: one line that names the file, and nothing is unpickled."""

import json
import pickle
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitdfq.common.errors import InputError
from vitdfq.models import load_teacher


class Bomb:
    """Unpickling it fails the test."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def refusal(folder) -> str:
    with pytest.raises(InputError) as caught:
        load_teacher(f"local-dir:{folder}")
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def edit(folder, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_no_folder(folder):
    assert "no such folder" in refusal(folder / "elsewhere")


def test_no_config(folder):
    (folder / "config.json").unlink()
    assert "has no config.json" in refusal(folder)


@pytest.mark.parametrize("text", ["{", "", "\udcff"])
def test_config_that_is_no_json(folder, text):
    (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    assert "config.json: cannot be read as JSON" in refusal(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [([], "not a mapping"), ({}, 'names no "architecture"'), ({"architecture": 3}, 'names no "architecture"')],
)
def test_config_of_something_else(folder, config, message):
    (folder / "config.json").write_text(json.dumps(config))
    assert message in refusal(folder)


@pytest.mark.parametrize("key", ["model_args", "pretrained_cfg"])
def test_config_with_wrong_types(folder, key):
    edit(folder, **{key: 3})
    assert f'"{key}" is not a mapping' in refusal(folder)


def test_a_quantized_checkpoint(folder):
    edit(folder, quantization_config={"quant_method": "vitdfq"})
    assert "of a quantized model, not of a float one; vitdfq.load(folder)" in refusal(folder)


def test_config_of_an_unknown_architecture(folder):
    edit(folder, architecture="vit_tinny_patch16_224")
    assert "did you mean 'vit_tiny_patch16_224'" in refusal(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "has no model.safetensors" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_weights(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert "model.safetensors: damaged or truncated" in refusal(folder)


def test_corrupted_weights(folder):
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[8:20] = b"\x00" * 12
    file.write_bytes(content)
    assert "model.safetensors: damaged or truncated" in refusal(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth"])
def test_a_pickle_instead_of_safetensors(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    message = refusal(folder)
    assert name in message
    assert "vitdfq convert" in message


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickle"])
def test_a_pickle_named_safetensors(folder, zipped):
    file = folder / "model.safetensors"
    torch.save({"head.weight": Bomb()}, file, _use_new_zipfile_serialization=zipped)
    message = refusal(folder)
    assert "pickle" in message
    assert "vitdfq convert" in message


def test_a_pickle_beside_safetensors_is_not_opened(folder):
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    load_teacher(f"local-dir:{folder}")


def test_weights_of_another_model(folder):
    edit(folder, model_args={"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2})
    assert "the weights do not fit" in refusal(folder)


def test_a_missing_tensor(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["blocks.0.attn.qkv.weight"]
    save_file(tensors, file)
    assert "blocks.0.attn.qkv.weight" in refusal(folder)


def test_arguments_that_lead_to_another_file(folder, tmp_path):
    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Bomb()))
    edit(folder, model_args={"checkpoint_path": str(tmp_path / "trap.pth")})
    assert "checkpoint_path is no argument that shapes a model" in refusal(folder)


def test_a_config_that_brings_its_own_weights(folder):
    config = json.loads((folder / "config.json").read_text())
    before = load_teacher(f"local-dir:{folder}").state_dict()
    edit(folder, pretrained_cfg={**config["pretrained_cfg"], "state_dict": {"head.bias": [0, 0]}, "custom_load": True})
    after = load_teacher(f"local-dir:{folder}").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_that_are_not_finite(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["head.bias"][0] = torch.nan
    save_file(tensors, file)
    assert "head.bias is not finite" in refusal(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("mean", [0.5]), ("std", [0, 1, 1]), ("input_size", [3, -32, 32]), ("crop_pct", -1), ("interpolation", 3)],
)
def test_images_that_cannot_be(folder, key, value):
    config = json.loads((folder / "config.json").read_text())
    edit(folder, pretrained_cfg={**config["pretrained_cfg"], key: value})
    assert f"pretrained_cfg.{key} is " in refusal(folder)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("my model.pth", "is a pickle of PyTorch"),
        ("mine.pt", "is a pickle of PyTorch"),
        ("pytorch_model.bin", "is a pickle of PyTorch"),
        ("model_best.pth.tar", "is a training checkpoint, as timm"),
        ("last.ckpt", "is a training checkpoint, as PyTorch Lightning"),
        ("mine.safetensors", "is a file of tensors without a config.json"),
    ],
)
def test_a_file_is_named_with_the_command_that_converts_it(name, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open(name, "wb") as file:
        pickle.dump(Bomb(), file)
    for given in (name, f"./{name}", f"local-dir:{name}", str(tmp_path / name)):
        with pytest.raises(InputError) as caught:
            load_teacher(given)
        message, path = str(caught.value), tmp_path / name if given.startswith("/") else Path(name)
        assert kind in message and "\n" not in message
        words = shlex.split(message.partition("make a folder of it: ")[2])
        assert words == ["vitdfq", "convert", str(path), "--arch", "NAME", "--out", str(path.parent / name.partition(".")[0])]


def test_folders_of_other_files_are_named_with_the_command(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")  # as timm's save_for_hf writes it by default
    assert refusal(folder).endswith(f": vitdfq convert {folder} --out {folder}_converted")
    (folder / "config.json").unlink()
    command = f"vitdfq convert {folder}/pytorch_model.bin --arch NAME --out {folder}/pytorch_model"
    assert refusal(folder).endswith(f"make one of pytorch_model.bin: {command}")


def test_a_path_of_a_folder_needs_no_prefix(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder.rename(tmp_path / "last.ckpt")
    for name in ("last.ckpt", "./last.ckpt", str(tmp_path / "last.ckpt")):
        assert load_teacher(name).vitdfq["model"]["name"] == f"local-dir:{name}"
    with pytest.raises(InputError, match=r"name its folder, local-dir:last.ckpt"):
        load_teacher("last.ckpt/model.safetensors")
    with pytest.raises(InputError, match=r"mine.pth: no such file"):
        load_teacher("mine.pth")
