"""Folders of Hugging Face `transformers`: the teacher is timm's model of the same weights; what is not read is named."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers_folders import FOLDERS, LABELS, write_folder

from vitdfq.calibration import calibrate
from vitdfq.checkpoint.save_load import load, save
from vitdfq.common.errors import InputError
from vitdfq.models import attention_sites, build, gives, load_teacher, structure
from vitdfq.models.convert import convert
from vitdfq.models.transformers.kinds import KINDS
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 32, "width": 32},
    "resample": 2,
    "do_normalize": True,
    "image_mean": [0.25] * 3,
    "image_std": [0.125] * 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
}


def write_processor(folder: Path, **changes: object) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | changes))


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def refusal(folder: Path, **arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        load_teacher(folder, **arguments)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    return message


def test_every_type_that_is_read_has_a_folder_here():
    assert {spec.model_type for spec in FOLDERS.values()} >= set(KINDS) - {"vit_msn"}  # ViT under another name


@pytest.mark.parametrize("kind", FOLDERS)
def test_the_teacher_is_timms_model_and_can_be_built_again(kind, tmp_path):
    model = write_folder(kind, tmp_path)
    teacher = load_teacher(tmp_path)
    with torch.no_grad():
        expected, outputs = model(IMAGES), teacher(IMAGES)
        torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
        assert expected.std(0).max() > 1e-3 * expected.abs().max()  # they depend on the image
        rebuilt = build(json.loads(json.dumps(teacher.vitdfq)))
        rebuilt.load_state_dict(teacher.state_dict())
        assert torch.equal(rebuilt(IMAGES), outputs) and rebuilt.vitdfq == teacher.vitdfq
    head = FOLDERS[kind].head
    assert gives(teacher) == ("features" if head in (None, {"head": "visual_projection"}) else "classes")
    if gives(teacher) == "classes":
        assert teacher.vitdfq["model"]["pretrained_cfg"]["label_names"] == list(LABELS.values())
    untrained = structure(f"local-dir:{tmp_path}")
    assert untrained.vitdfq == teacher.vitdfq and attention_sites(untrained) == attention_sites(teacher)


def test_epsilon_is_that_of_the_config(tmp_path):
    write_folder("vit", tmp_path)  # its config says 1e-2
    teacher = load_teacher(tmp_path)
    assert {part.eps for part in teacher.modules() if isinstance(part, torch.nn.LayerNorm)} == {1e-2}
    again = load_teacher(teacher)
    assert torch.equal(again(IMAGES), teacher(IMAGES)) and again.vitdfq["model"]["model_args"]["norm_eps"] == 1e-2
    assert not torch.allclose(load_teacher(tmp_path, norm_eps=1e-6)(IMAGES), teacher(IMAGES), rtol=1e-3)
    for wrong in (0.0, 2.0, "x", True):
        with pytest.raises(ValueError, match=r"norm_eps is .*; expected a number between 0 and 1"):
            load_teacher(tmp_path, norm_eps=wrong)


@pytest.mark.parametrize("kind", ["vit", "deit", "clip_pair"])
def test_a_student_is_saved_and_loaded_bit_equal(kind, tmp_path):
    write_folder(kind, tmp_path / "teacher")
    teacher = prepare(load_teacher(tmp_path / "teacher"))
    student = quantize(teacher, bits="w8a8")
    calibrate(student, teacher, IMAGES, steps=["observe"])
    save(student, tmp_path / "student")
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "student")(IMAGES), student(IMAGES))


def test_images_are_as_the_processor_makes_them(tmp_path):
    write_folder("vit", tmp_path)

    def images(**changes: object) -> dict:
        write_processor(tmp_path, **changes)
        return load_teacher(tmp_path).vitdfq["model"]["pretrained_cfg"]

    keys = ("mean", "std", "interpolation", "input_size", "crop_pct", "crop_mode")
    expected = [[0.25] * 3, [0.125] * 3, "bilinear", [3, 32, 32], 1.0, "squash"]
    assert [images()[key] for key in keys] == expected
    square = {"do_center_crop": True, "size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}}
    assert [images(**square)[key] for key in ("crop_pct", "crop_mode")] == [0.8, "squash"]
    shortest = square | {"size": {"shortest_edge": 64}, "resample": 3}
    assert [images(**shortest)[key] for key in ("crop_pct", "crop_mode", "interpolation")] == [0.5, "center", "bicubic"]
    old = {"do_center_crop": True, "size": 40, "crop_size": 32, "image_processor_type": None}  # before version 4.24
    assert images(**old)["crop_mode"] == "squash"
    assert images(**old | {"feature_extractor_type": "CLIPFeatureExtractor"})["crop_mode"] == "center"
    assert images(do_normalize=False)["std"] == [1.0] * 3
    assert images(rescale_factor=1 / 127.5)["std"] == pytest.approx([0.0625] * 3)


def test_images_of_a_folder_without_processor_are_said_to_be_a_guess(tmp_path, caplog):
    write_folder("vit", tmp_path)
    assert load_teacher(tmp_path).pretrained_cfg["mean"] == [0.5] * 3
    assert "has no preprocessor_config.json; images are taken to be normalized with mean [0.5, 0.5, 0.5]" in caplog.text


@pytest.mark.parametrize("changes", [{"image_mean": [0.5]}, {"resample": 9}, {"size": "big"}, {"rescale_factor": 0}])
def test_a_processor_of_impossible_images(changes, tmp_path):
    write_folder("vit", tmp_path)
    write_processor(tmp_path, **changes)
    assert "preprocessor_config.json: " in refusal(tmp_path)


@pytest.mark.parametrize(("kind", "prefix", "antialias"), [("vit", 1, False), ("deit", 2, False), ("dinov2_registers", 1, True)])
def test_positions_are_interpolated_for_another_size(kind, prefix, antialias, tmp_path):
    write_folder(kind, tmp_path)
    stored = next(value for name, value in load_file(tmp_path / "model.safetensors").items() if "position" in name)
    patches = stored[:, prefix:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    patches = torch.nn.functional.interpolate(patches, (6, 6), mode="bicubic", antialias=antialias).permute(0, 2, 3, 1)
    teacher = load_teacher(tmp_path, img_size=48)
    torch.testing.assert_close(teacher.pos_embed[:, -36:], patches.flatten(1, 2))
    assert attention_sites(teacher)[0].grid == (6, 6)
    with pytest.raises(ValueError, match="img_size is 'x'; expected a side, or height and width"):
        load_teacher(tmp_path, img_size="x")


def test_dinov2_is_built_for_the_images_of_its_processor(tmp_path):
    write_folder("dinov2", tmp_path)
    write_processor(tmp_path, size={"height": 24, "width": 24})
    assert load_teacher(tmp_path).pretrained_cfg["input_size"] == [3, 24, 24]
    assert load_teacher(tmp_path, img_size=32).pretrained_cfg["input_size"] == [3, 32, 32]
    write_processor(tmp_path, size={"height": 27, "width": 27})  # no whole number of patches
    assert load_teacher(tmp_path).pretrained_cfg["input_size"] == [3, 32, 32]


def test_features_of_a_classifier(tmp_path):
    model = write_folder("deit_teacher", tmp_path)
    teacher = load_teacher(tmp_path, num_classes=0)
    model.reset_classifier(0)
    assert gives(teacher) == "features" and torch.equal(teacher(IMAGES), model(IMAGES))
    with pytest.raises(ValueError, match="has weights for 5 classes; for num_classes=9 it has no trained head"):
        load_teacher(tmp_path, num_classes=9)


def test_a_head_that_timm_does_not_have(tmp_path):
    model = write_folder("dinov2", tmp_path)
    tensors = {f"dinov2.{name}": value for name, value in load_file(tmp_path / "model.safetensors").items()}
    save_file(tensors | {"classifier.weight": torch.ones(5, 64)}, tmp_path / "model.safetensors")
    edit(tmp_path, architectures=["Dinov2ForImageClassification"], id2label=LABELS)
    message = refusal(tmp_path)
    assert "reads the class token and the mean of the patches" in message and message.endswith("num_classes=0 loads its features")
    torch.testing.assert_close(load_teacher(tmp_path, num_classes=0)(IMAGES), model(IMAGES))


def test_weights_in_several_files(tmp_path):
    model = write_folder("vit", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(tensors)}
    for file in sorted(set(names.values())):
        save_file({name: tensors[name] for name in names if names[name] == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    torch.testing.assert_close(load_teacher(tmp_path)(IMAGES), model(IMAGES))
    convert(tmp_path, tmp_path / "out")
    torch.testing.assert_close(load_teacher(tmp_path / "out")(IMAGES), model(IMAGES))
    (tmp_path / file).unlink()
    assert f"has no {file}" in refusal(tmp_path)
    index.write_text(json.dumps({"weight_map": {"classifier.bias": "../elsewhere.safetensors"}}))
    assert "which is no safetensors file of this folder" in refusal(tmp_path)
    index.write_text("{}")
    assert "has no weight_map" in refusal(tmp_path)


@pytest.mark.integration
@pytest.mark.parametrize("source", ["folder", pytest.param("file", marks=pytest.mark.slow)])
def test_a_pickle_is_converted(source, tmp_path):
    folder, out = tmp_path / "given", tmp_path / "out"
    model = write_folder("vit", folder)
    write_processor(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert refusal(folder).endswith(f"vitdfq convert {folder} --out {folder}_converted")
    result = convert(folder if source == "folder" else folder / "pytorch_model.bin", out)
    assert result["mean"] == [0.25] * 3 and result["classes"] == 5
    teacher = load_teacher(out)
    torch.testing.assert_close(teacher(IMAGES), model(IMAGES))
    assert teacher.vitdfq["model"]["model_args"]["norm_eps"] == 1e-2  # timm has no word for it: it stands beside
    assert teacher.pretrained_cfg["label_names"] == list(LABELS.values()) and gives(teacher) == "classes"
    with pytest.raises(InputError, match=r"config.json beside it says which model it is \(vit\); leave --arch out"):
        convert(folder, tmp_path / "other", "vit_base_patch16_224")


def test_a_pickle_beside_safetensors_is_not_opened(tmp_path):
    write_folder("vit", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    load_teacher(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "vit_mae"},
            r"is a transformers model of type 'vit_mae' ('ViTForImageClassification'); types that are read: vit",
        ),
        ({"model_type": "bert", "architectures": None}, "is a transformers model of type 'bert'; types that are read: vit"),
        (
            {"architectures": ["ViTForMaskedImageModeling"]},
            "is a 'ViTForMaskedImageModeling'; classes of this type that are read",
        ),
        ({"architectures": None}, 'names no class in "architectures"'),
        ({"hidden_size": "x"}, "hidden_size is 'x'; expected a whole number above 0"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True; expected a whole number above 0"),
        ({"image_size": [32]}, "image_size is [32]; expected a size"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'; expected one of gelu"),
        ({"num_channels": 1}, "num_channels is 1; only RGB"),
        ({"id2label": {"1": "a"}}, "id2label does not number the classes 0, 1, 2"),
        ({"problem_type": "regression"}, "problem_type is 'regression'"),
        ({"num_attention_heads": 3}, "timm cannot build vit_base_patch16_224"),
        ({"hidden_size": 2**20}, "no model has that"),
        ({"num_hidden_layers": 3}, "the weights do not fit vit_base_patch16_224: lacks blocks.2.norm1.weight"),
        ({"intermediate_size": 80}, "has in another shape blocks.0.mlp.fc1.weight"),
        ({"quantization_config": {}}, "of a quantized model"),
    ],
)
def test_configs_that_are_not_read(changes, message, tmp_path):
    write_folder("vit", tmp_path, **changes)
    assert message in refusal(tmp_path)


def test_a_swin_that_timm_does_not_have(tmp_path):
    write_folder("swin", tmp_path, use_absolute_embeddings=True)
    assert "use_absolute_embeddings is True; timm's Swin has False only" in refusal(tmp_path)


def test_a_projection_that_would_pass_for_a_classifier(tmp_path):
    write_folder("clip_pair", tmp_path, projection_dim=500)
    assert "its projection has 500 outputs, as no tower of timm's" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vit.encoder.layer.0.attention.attention.key.weight", None, "lacks blocks.0.attn.qkv.weight"),
        ("vit.encoder.layer.0.attention.attention.key.weight", torch.ones(3), "in shapes that no ViTForImageClassification has"),
        ("vit.embeddings.position_embeddings", torch.ones(1, 9, 32), "has in another shape pos_embed"),
        ("classifier.bias", torch.full((5,), torch.nan), "head.bias is not finite"),
        ("vit.extra", torch.ones(1), "has besides extra"),
    ],
)
def test_tensors_that_do_not_fit(name, value, message, tmp_path):
    write_folder("vit", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors") | {name: value}
    save_file({name: value for name, value in tensors.items() if value is not None}, tmp_path / "model.safetensors")
    assert message in refusal(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "vit_tinny_patch16_224"}, "unknown timm model 'vit_tinny_patch16_224', did you mean"),
        ({"architecture": None}, 'names no "architecture" of timm'),
        ({"model_args": 3}, '"model_args" is not a mapping'),
        ({"model_args": {"checkpoint_path": "x"}}, "checkpoint_path is no argument that shapes a model"),
        ({"pretrained_cfg": {"mean": [1]}}, "pretrained_cfg.mean is [1]"),
        ({"architectures": ["TimmWrapperBackbone"]}, "is a 'TimmWrapperBackbone'; classes of this type that are read"),
    ],
)
def test_wrapped_models_that_are_not_read(changes, message, tmp_path):
    write_folder("timm_wrapper", tmp_path, **changes)
    assert message in refusal(tmp_path)


def test_a_wrapped_model_of_timms_own_arguments(tmp_path):
    """`"model_args": null` stands for those of the architecture."""
    write_folder("timm_wrapper", tmp_path, model_args=None)
    description = structure(f"local-dir:{tmp_path}").vitdfq["model"]
    assert (description["architecture"], description["model_args"], description["num_classes"]) == ("vit_tiny_patch16_224", {}, 5)
